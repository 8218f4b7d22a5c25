"""From a file, overrides or a message to checked settings: all problems in one message.

In:  a TOML file (kebab-case keys) and `key=value` overrides, or a tree of keys. Out: frozen settings; their hash.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fedecg.config.section import Section
from fedecg.config.site import SiteSettings
from fedecg.config.study import StudySettings
from fedecg.errors import SettingsError
from fedecg.files import in_words

__all__ = ["load_site", "load_study", "parse_settings", "settings_sha256"]

Settings = TypeVar("Settings", bound=Section)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudySettings:
    """Read a study (or simulation) file and apply `section.key=value` overrides.

    Raises:
        SettingsError: FECG-101..104; FECG-103 lists every problem of the file at once.
    """
    tree = _read_toml(Path(path))
    for override in overrides:
        _apply_override(tree, override)
    return parse_settings(StudySettings, tree)


def load_site(path: str | Path) -> SiteSettings:
    """Read a site's `site.toml`; its relative paths come back absolute.

    Raises:
        SettingsError: FECG-101..103.
    """
    site = parse_settings(
        SiteSettings, _read_toml(Path(path)), "in the site.toml that fedecg-client init writes"
    )
    base, server = Path(path).resolve().parent, site.server
    if server:
        server = server.model_copy(update={"ca": str(base / server.ca), "key": str(base / server.key)})
    text = site.text
    if text:
        reports = str(base / (text.reports or site.cohort))
        text = text.model_copy(update={"encoder": str(base / text.encoder), "reports": reports})
    places = {
        "store": str(base / site.store),
        "cohort": str(base / site.cohort),
        "text": text,
        "server": server,
    }
    return site.model_copy(update=places)


def parse_settings(
    kind: type[Settings], tree: Mapping[str, Any], shown: str = "in configs/*.toml"
) -> Settings:
    """Validate a tree of kebab-case keys (from TOML or from a message).

    Args:
        kind: what they must be. tree: what was given.
        shown: where whoever wrote them finds keys and ranges, after "as".

    Raises:
        SettingsError: FECG-103, one line a problem, each with the key's path.
    """
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
    raise SettingsError(
        "FECG-103",
        "settings",
        found=f"{len(lines)} problem(s)\n  " + "\n  ".join(lines) + "\n",
        expected=f"keys and ranges as {shown}",
    )


def settings_sha256(settings: Section) -> str:
    """Hash of all settings, independent of the order in which a file states them."""
    text = json.dumps(settings.model_dump(by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "FECG-101",
            path.name or str(path),
            found=in_words(error),
            expected="a readable TOML file",
            fix="Check the path.",
        ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, a number beyond all bounds, nested without end
        raise SettingsError("FECG-102", path.name, found=f"{error!s:.200}", expected="TOML 1.0") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last or not all(sections):
        raise SettingsError(
            "FECG-104",
            "--set",
            found="a word that is not key=value",
            expected="--set section.key=value",
            fix="Example: --set survival.loss=cox-batch",
        )
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(
                "FECG-104", f"--set {key}", found="a key below a value", expected="section.key=value"
            )
    tree[last] = _override_value(text.strip())


def _override_value(text: str) -> object:
    """Read the value as TOML; a bare word that is not TOML is a string."""
    try:
        tree = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return tree["value"] if len(tree) == 1 else text


def _describe(problem: Any) -> str:
    path = ".".join(repr(str(part))[1:-1] for part in problem["loc"])[:200] or "(whole file)"
    silent = problem["type"] in ("missing", "extra_forbidden") or isinstance(problem["input"], Mapping)
    found = (
        "" if silent else f" (found {problem['input']!r:.60})"
    )  # of a whole section the message says enough
    message = {"extra_forbidden": "unknown key", "missing": "key is missing"}.get(
        problem["type"], problem["msg"]
    )
    return f"{path}: {message}{found}"
