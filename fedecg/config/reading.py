"""From a file, overrides or a message to checked settings: all problems in one message.

In:  a TOML file (kebab-case keys) and `key=value` overrides, or a tree of keys. Out: frozen settings; their hash.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from fedecg.config.section import FORMS, Section
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
    path = Path(path)
    tree = _read_toml(path)
    for override in overrides:
        _apply_override(tree, override)
    where = f"{path.name} or --set" if overrides else path.name
    made = path.name == "study.toml"  # configs/ is not installed with the package
    shown = "in the study.toml that fedecg-server init writes" if made else "in configs/*.toml"
    return parse_settings(StudySettings, tree, shown, where)


def load_site(path: str | Path) -> SiteSettings:
    """Read a site's `site.toml`; its relative paths come back absolute.

    Raises:
        SettingsError: FECG-101..103.
    """
    site = parse_settings(
        SiteSettings,
        _read_toml(Path(path)),
        "in the site.toml that fedecg-client init writes",
        Path(path).name,
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
    kind: type[Settings], tree: Mapping[str, Any], shown: str = "in configs/*.toml", where: str = "settings"
) -> Settings:
    """Validate a tree of kebab-case keys (from TOML or from a message).

    Args:
        kind: what they must be. tree: what was given.
        shown: where whoever wrote them finds keys and ranges, after "as".
        where: the name of the file or of the options in which they stand.

    Raises:
        SettingsError: FECG-103, one line a problem, each with the key's path.
    """
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_describe(problem, kind) for problem in error.errors()]
    raise SettingsError(
        "FECG-103",
        where,
        found=f"{len(lines)} problem(s)\n  " + "\n  ".join(lines) + "\n",
        expected=f"keys and ranges as {shown}",
        fix=f"Mend each of these lines in {where if where != 'settings' else 'the settings'}.",
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


def _describe(problem: Any, kind: type[Section]) -> str:
    path = ".".join(repr(str(part))[1:-1] for part in problem["loc"])[:200] or "(whole file)"
    silent = problem["type"] in ("missing", "extra_forbidden") or isinstance(problem["input"], Mapping)
    found = (
        "" if silent else f" (found {problem['input']!r:.60})"
    )  # of a whole section the message says enough
    return f"{path}: {_in_words(problem, kind)}{found}"


def _in_words(problem: Any, kind: type[Section]) -> str:
    """What was expected, in words of people and not of pydantic."""
    if problem["type"] == "missing":
        return "key is missing"
    if problem["type"] == "extra_forbidden":
        *sections, key = map(str, problem["loc"])
        near = get_close_matches(key, _keys(kind, sections), 1)
        return "unknown key" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "string_pattern_mismatch":
        return FORMS.get(problem["ctx"]["pattern"], "expected another form")
    words = problem["msg"].removeprefix("Value error, ")
    words = re.sub(r"^Input should be (?=greater|less)", "expected a value ", words)
    return re.sub(r"^(Input should be|\w+ should have)", "expected", words)


def _keys(kind: type[Section], sections: Sequence[str]) -> list[str]:
    """Keys of a section of settings, as they stand in files; none where it has no fixed ones."""
    for section in sections:
        field = next((field for field in kind.model_fields.values() if field.alias == section), None)
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        below = [one for one in inner if isinstance(one, type) and issubclass(one, Section)]
        if not below:
            return []
        kind = below[0]
    return [field.alias or name for name, field in kind.model_fields.items()]
