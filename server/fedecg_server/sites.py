"""Who may take part: the list of sites, their public keys, and the SuperLink's list of nodes, kept the same.

In:  names and key files. Out: sites.json, keys/NAME.pub, nodes registered with the running SuperLink. Called by
`fedecg-server site`, and by the supervisor as soon as the SuperLink answers (`register_all`).
A key that was removed does not come back: Flower keeps it as unregistered for good, and so does sites.json.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from fedecg.config import Section, parse_settings
from fedecg.errors import RunError, RunInputError, SettingsError
from fedecg.federation.identity import SiteKey, read_public_key
from fedecg.files import in_words, write_whole
from fedecg_server.control import KeyInUseError, NodeRegistry, NotRunningError, key_of
from fedecg_server.coordinator import Coordinator

__all__ = ["NAME", "Change", "SiteEntry", "SiteList", "add_site", "read_sites", "register_all", "remove_site"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # that of SiteSettings
LOCK_S = 30.0  # longest wait for another command that changes the list
NEW_KEY = (
    "The site makes a new key (fedecg-client renew-key); remove the site and add it again with node.new.pub."
)


class SiteEntry(Section):
    """A site of sites.json."""

    key: str  # keys/NAME.pub
    fingerprint: Annotated[str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]
    node_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None = None  # none: not registered yet


class SiteList(Section):
    """sites.json."""

    sites: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], SiteEntry]
    removed: list[str] = []  # fingerprints of keys that do not come back

    @model_validator(mode="after")
    def _keys_stand_in_their_folder(self) -> SiteList:
        if any(entry.key != f"keys/{name}.pub" for name, entry in self.sites.items()):
            raise ValueError("expected keys/NAME.pub")
        return self


@dataclass(frozen=True)
class Change:
    """What a command did.

    Attributes:
        entry: of the site.
        live: whether the running SuperLink knows it already; else it will from its next start on.
    """

    entry: SiteEntry
    live: bool


def read_sites(coordinator: Coordinator) -> SiteList:
    """The list as it stands on disk.

    Raises:
        RunError: FECG-672 if sites.json is missing or damaged.
    """
    try:
        return parse_settings(SiteList, json.loads(coordinator.sites_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError, SettingsError) as error:
        raise RunInputError(
            "FECG-672",
            "sites.json",
            found=in_words(error),
            expected="the list that `fedecg-server site` keeps",
            fix='Restore it from a backup, or write {"sites": {}} into it and add every site again.',
        ) from None


def add_site(coordinator: Coordinator, name: str, key_file: Path) -> Change:
    """Let a site take part, at once if the SuperLink runs.

    Args:
        coordinator: whose list it is.
        name: that the site gives itself in its site.toml.
        key_file: its public key, node.pub; the file is read, not copied.

    Raises:
        SettingsError: FECG-126 name; FECG-127, FECG-128 key file; FECG-129 a key that is taken or was removed.
        RunError: FECG-601, FECG-672, FECG-678; FECG-675 if the SuperLink does not take the key.
    """
    if not NAME.fullmatch(name):
        expected = "1-64 letters, digits, dots, hyphens, underscores"
        raise _bad_name("a name that cannot be used", expected, "It stands in the site's site.toml.")
    key = read_public_key(key_file)
    with _locked(coordinator):
        sites = read_sites(coordinator)
        _check_free(sites, name, key)
        entry = SiteEntry(key=f"keys/{name}.pub", fingerprint=key.fingerprint)
        entries = {**sites.sites, name: entry}
        write_whole(coordinator.folder / entry.key, f"{key.text} {name}\n")
        _write(coordinator, sites, entries)
        nodes = _synchronised(coordinator, entries)
        if nodes is None:
            return Change(entry, live=False)
        if name in nodes.refused:
            _write(coordinator, sites, sites.sites)
            (coordinator.folder / entry.key).unlink(missing_ok=True)
            raise _refused("a key that it unregistered for good", NEW_KEY)
        entries = _with_ids(entries, nodes)
        _write(coordinator, sites, entries)
        return Change(entries[name], live=True)


def remove_site(coordinator: Coordinator, name: str) -> Change:
    """Let a site take part no more: its messages are refused from now on, and its key does not come back.

    Raises:
        RunError: FECG-676 no such site; FECG-601, FECG-672, FECG-675, FECG-678.
    """
    with _locked(coordinator):
        sites = read_sites(coordinator)
        if name not in sites.sites:
            raise RunError(
                "FECG-676",
                "site",
                found=f"none of that name among {len(sites.sites)}",
                expected="a name of the list",
                fix="See: fedecg-server site list.",
            )
        entry = sites.sites[name]
        rest = {other: kept for other, kept in sites.sites.items() if other != name}
        nodes = _synchronised(
            coordinator, rest
        )  # before it leaves the list: whom a kill spares is still listed
        removed = sites.model_copy(update={"removed": [*sites.removed, entry.fingerprint]})
        _write(coordinator, removed, rest if nodes is None else _with_ids(rest, nodes))
        (coordinator.folder / f"keys/{name}.pub").unlink(missing_ok=True)
        return Change(entry, live=nodes is not None)


def register_all(coordinator: Coordinator) -> dict[str, int]:
    """Make the running SuperLink's list of nodes the same as sites.json, and write down the node ids.

    Keys that it has already keep their ids; keys that are not in the list (removed while it stood still) are
    unregistered; a new database gets them all. Doing it twice changes nothing.

    Returns:
        Name of every site -> its node id.

    Raises:
        RunError: FECG-675 if the SuperLink does not run, does not answer or refuses a key (all others are
            registered first); FECG-672, FECG-678.
    """
    with _locked(coordinator):
        sites = read_sites(coordinator)
        nodes = _synchronised(coordinator, sites.sites)
        if nodes is None:
            raise _refused("nobody who listens on control-port", "Start it first: fedecg-server start.")
        entries = _with_ids(sites.sites, nodes)
        if entries != sites.sites:
            _write(coordinator, sites, entries)
    if nodes.refused:
        names = ", ".join(nodes.refused)
        raise _refused(f"{len(nodes.refused)} key(s) unregistered for good: {names}", NEW_KEY)
    return nodes.ids


@dataclass(frozen=True)
class _Nodes:
    ids: dict[str, int]  # site -> node id
    refused: list[str]  # sites whose key the SuperLink unregistered for good


def _synchronised(coordinator: Coordinator, entries: dict[str, SiteEntry]) -> _Nodes | None:
    """Nodes after the SuperLink was told who is in the list and who is not; none if it does not run."""
    keys = {name: _listed_key(coordinator, name, entry) for name, entry in entries.items()}
    try:
        with NodeRegistry(coordinator.settings.control_port, coordinator.tls.ca) as registry:
            return _synchronise(registry, keys)
    except NotRunningError:
        return None


def _synchronise(registry: NodeRegistry, keys: dict[str, bytes]) -> _Nodes:
    known = registry.nodes()
    for key, node in known.items():
        if key not in keys.values():
            registry.unregister(node)
    nodes = _Nodes({}, [])
    for name, key in keys.items():
        try:
            nodes.ids[name] = known[key] if key in known else registry.register(key)
        except KeyInUseError:
            nodes.refused.append(name)
    return nodes


def _with_ids(entries: dict[str, SiteEntry], nodes: _Nodes) -> dict[str, SiteEntry]:
    ids = {name: str(nodes.ids[name]) if name in nodes.ids else None for name in entries}
    return {name: entry.model_copy(update={"node_id": ids[name]}) for name, entry in entries.items()}


def _listed_key(coordinator: Coordinator, name: str, entry: SiteEntry) -> bytes:
    try:
        key = read_public_key(coordinator.folder / entry.key)
    except SettingsError as error:
        fix = f"Put {entry.key} back: from a backup, or as the node.pub that {name} has sent."
        raise SettingsError(
            error.code, f"key of {name}", found=error.found, expected=error.expected, fix=fix
        ) from None
    if key.fingerprint != entry.fingerprint:
        raise SettingsError(
            "FECG-129",
            f"key of {name}",
            found="another fingerprint than in sites.json",
            expected="the key that was added",
            fix="Was keys/ changed by hand? Remove the site and add it again.",
        )
    return key_of(key.key)


def _check_free(sites: SiteList, name: str, key: SiteKey) -> None:
    taken = next((other for other in sites.sites if other.lower() == name.lower()), None)
    if taken is not None:
        raise _bad_name(
            "a name that is taken",
            "a name of its own for each site, also in small letters",
            f"Is this the new key of that site? First: fedecg-server site remove {taken}. Another site writes another "
            "name into its site.toml.",
        )
    holder = next((n for n, entry in sites.sites.items() if entry.fingerprint == key.fingerprint), None)
    if holder is not None or key.fingerprint in sites.removed:
        raise SettingsError(
            "FECG-129",
            "key file",
            found=f"the key of {holder}" if holder else "a key that was removed",
            expected="a key of its own for each site, and a new one after a removal",
            fix="The site makes a new key (fedecg-client renew-key) and sends node.new.pub.",
        )


@contextmanager
def _locked(coordinator: Coordinator) -> Iterator[None]:
    coordinator.state.mkdir(mode=0o700, exist_ok=True)
    until = time.monotonic() + LOCK_S
    with (coordinator.state / "sites.lock").open("w") as lock:
        while not _taken(lock.fileno()):
            if time.monotonic() > until:
                raise RunError(
                    "FECG-678",
                    "list of sites",
                    found=f"another command that has been changing it for {LOCK_S:.0f} s",
                    expected="one at a time",
                    fix="Wait for it, or end it.",
                )
            time.sleep(0.05)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(coordinator: Coordinator, sites: SiteList, entries: dict[str, SiteEntry]) -> None:
    document = sites.model_copy(update={"sites": dict(sorted(entries.items()))}).model_dump(by_alias=True)
    write_whole(coordinator.sites_file, json.dumps(document, indent=2) + "\n")


def _bad_name(found: str, expected: str, fix: str) -> SettingsError:
    return SettingsError("FECG-126", "name of the site", found=found, expected=expected, fix=fix)


def _refused(found: str, fix: str) -> RunError:
    return RunError(
        "FECG-675", "SuperLink", found=found, expected="every site of the list registered", fix=fix
    )
