"""A site's folder: every path in it, and how it is made.

In:  what somebody typed: names, an address, the coordinator's CA. Out: the folder, with a key that was made here and
never leaves; a `SiteFolder` that knows where everything stands. Called by `fedecg-client`.
site.toml is written last: a folder without it is no site's folder, so what a kill leaves is never taken for finished.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import tomli_w

from fedecg.config import SiteSettings, load_site, parse_settings
from fedecg.errors import RunError, SettingsError
from fedecg.files import in_words, write_whole
from fedecg_client.keys import make_key, read_authority

__all__ = [
    "SiteFolder", "create_site", "lock_sha256", "made_state", "open_site", "site_state",
    "split_address", "study_name",
]  # fmt: skip

STUDY = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # that of StudySettings
SHA256 = re.compile(r"[0-9a-f]{64}")
TEMPLATE = {
    "name": 'name = "site-name"',
    "cohort": 'cohort = "cohort.csv"',
    "store": 'store = "store"',
    "address": 'address = "coordinator.example.org:9092"',
    "studies": "studies = []",
}
COHORT, STORE = "cohort.csv", "store"  # beside site.toml, where none is given


@dataclass(frozen=True)
class SiteFolder:
    """One site's folder.

    Attributes:
        folder: absolute.
        settings: its site.toml, paths absolute.
    """

    folder: Path
    settings: SiteSettings

    @property
    def state(self) -> Path:
        """What the agent and the app keep."""
        return self.folder / "state"

    @property
    def key(self) -> Path:
        """The private key."""
        return Path(self.settings.server.key) if self.settings.server else self.folder / "node.key"

    @property
    def ca(self) -> Path:
        """The coordinator's certificate authority."""
        return Path(self.settings.server.ca) if self.settings.server else self.folder / "ca.crt"


def open_site(folder: Path) -> SiteFolder:
    """Read a site's folder.

    Raises:
        SettingsError: FECG-123 if it is none; FECG-101..103 if its site.toml cannot be used.
    """
    if not (folder / "site.toml").is_file():
        raise SettingsError(
            "FECG-123",
            "site's folder",
            found="no site.toml" if folder.is_dir() else "no such folder",
            expected="a folder that `fedecg-client init` made",
            fix="Go into that folder, or name it: fedecg-client COMMAND DIR. After an `init` that was interrupted, "
            "remove the folder and run it again.",
        )
    return SiteFolder(folder.absolute(), load_site(folder / "site.toml"))


def create_site(
    folder: Path,
    name: str,
    address: str,
    ca: Path,
    cohort: Path | None = None,
    store: Path | None = None,
    studies: Sequence[str] = (),
) -> SiteFolder:
    """Make a site's folder, with a new key.

    Args:
        folder: absent or empty.
        name: of the site.
        address: host:port of the coordinator's fleet port.
        ca: the coordinator's ca.crt; its certificate is copied, and nothing else that the file may hold.
        cohort, store: of the site; by default beside site.toml, to be put there.
        studies: that the site takes part in.

    Raises:
        SettingsError: FECG-103 name or address; FECG-121 the folder is not empty; FECG-122 no CA; FECG-124 a port or
            the name of a study.
        RunError: FECG-601 if it cannot be written.
    """
    places = {
        "cohort": str(cohort.absolute()) if cohort else COHORT,
        "store": str(store.absolute()) if store else STORE,
    }
    needed = {"name": name, **places, "server": {"address": address}}
    parse_settings(SiteSettings, needed, "fedecg-client init --help shows them", "--name and --server")
    allowed = [study_name(study) for study in studies]
    split_address(address)
    authority = read_authority(ca)
    given: dict[str, str | list[str]] = {"name": name, **places, "address": address, "studies": allowed}
    _make_empty(folder)
    try:
        _fill(folder, authority, _settings_text(given))
    except BaseException:
        for entry in folder.iterdir():  # it was empty
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    return open_site(folder)


def site_state(folder: Path) -> Path:
    """Where a site keeps what it must not forget; there or not."""
    return folder / "state"


def made_state(folder: Path) -> Path:
    """The same, made for its owner alone where it is not there.

    Raises:
        RunError: FECG-601 if it cannot be made.
    """
    state = site_state(folder)
    try:
        state.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RunError(
            "FECG-601",
            "folder state of the site",
            found=type(error).__name__,
            expected="a folder that can be written",
            fix="Free space on that disk, or give the site's folder to the user that runs fedecg.",
        ) from None
    return state


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        SettingsError: FECG-124 for a port outside 1 to 65535.
    """
    host, _, port = address.rpartition(":")
    if not 1 <= int(port) <= 65535:
        raise _value("port of the coordinator", "a number that is no port", "1 to 65535")
    return host, int(port)


def study_name(text: str) -> str:
    """The name of a study, as it stands in file names and in a policy.

    Raises:
        SettingsError: FECG-124 for anything else.
    """
    if not STUDY.fullmatch(text):
        raise _value(
            "name of the study", "a name that no study can have", "1-64 small letters, digits, hyphens"
        )
    return text


def lock_sha256(text: str) -> str:
    """The hash of a lock, as people read it to each other: in small letters.

    Raises:
        SettingsError: FECG-124 for anything else.
    """
    if not SHA256.fullmatch(text.lower()):
        raise _value("hash of the study's lock", "no sha256", "64 digits and letters a to f")
    return text.lower()


def _fill(folder: Path, authority: bytes, settings: str) -> None:
    """Everything, and site.toml last."""
    try:
        (folder / "state").mkdir(mode=0o700)
    except OSError as error:
        raise _not_made(in_words(error)) from None
    write_whole(folder / "ca.crt", authority)
    make_key(folder / "node.key")
    write_whole(folder / "README.md", _template("README.md"))
    write_whole(folder / "site.toml", settings)


def _make_empty(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(in_words(error)) from None
    try:
        folder.mkdir(mode=0o700)
        return
    except FileExistsError:
        pass
    except OSError as error:
        raise _not_made(in_words(error)) from None
    try:
        entries = os.listdir(folder)  # noqa: PTH208  (a file where the folder should be raises here, too)
    except OSError as error:
        raise _taken(in_words(error)) from None
    if entries:
        raise _taken(f"{len(entries)} files or folders")


def _settings_text(given: Mapping[str, str | list[str]]) -> str:
    """The template with the given values, each written as TOML writes it."""
    text = _template("site.toml")
    for key, line in TEMPLATE.items():
        value = given[key]
        written = f"{key} = {json.dumps(value)}" if isinstance(value, list) else tomli_w.dumps({key: value})
        width = len(line) + text.partition(f"\n{line}")[2].index("#")  # comments stay in their column
        text = text.replace(f"\n{line}".ljust(width + 1), f"\n{written.strip()} ".ljust(width + 1), 1)
    return text


def _template(name: str) -> str:
    return (files("fedecg_client") / "templates" / name).read_text(encoding="utf-8")


def _taken(found: str) -> SettingsError:
    return SettingsError(
        "FECG-121",
        "folder for the site",
        found=found,
        expected="an absent or empty folder: a key is never written over",
        fix="Choose another DIR. What an interrupted `init` left has no site.toml: remove it first.",
    )


def _value(what: str, found: str, expected: str) -> SettingsError:
    return SettingsError("FECG-124", what, found=found, expected=expected, fix="Ask the coordinator for it.")


def _not_made(found: str) -> RunError:
    return RunError(
        "FECG-601",
        "site's folder",
        found=found,
        expected="a place that can be written, with space left",
        fix="Choose another DIR, or free space on that disk.",
    )
