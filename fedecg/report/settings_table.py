"""The settings of a study as a table: one row a section, what is not the default marked.

In:  settings as in study.toml. Out: a `Grid`, a note. Called by `html`.

Of a path only the last part is shown: the folders above it say where, and perhaps whose, the data are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from fedecg.config import StudySettings
from fedecg.report.grid import Grid
from fedecg.report.wording import printable

__all__ = ["settings_grid", "settings_notes"]

PATHS = frozenset(
    {
        "data.path",
        "data.clinical",
        "data.store",
        "data.aligned",
        "align.start",
        "align.bank",
        "survival.start",
        "site-defaults.text.encoder",
    }
)
SIMULATION = ("data", "partition", "drift", "site-defaults")  # sections that hospitals have no part in


def settings_grid(settings: StudySettings, *, simulation: bool) -> Grid:
    """Section and its settings; a star marks what is not the default.

    Args:
        simulation: also show where the data came from and how they were split.
    """
    default = StudySettings().model_dump(by_alias=True)
    sections: dict[str, list[str]] = {}
    for (section, key), value in _flat(settings.model_dump(by_alias=True)):
        if section in SIMULATION and not simulation:
            continue
        star = "" if _value(default, section, key) == value else "*"
        sections.setdefault(section, []).append(f"{key} {_text(section, key, value)}{star}")
    return Grid(
        header=("section", "settings"),
        rows=tuple((name, "; ".join(texts)) for name, texts in sections.items()),
        numeric=(False, False),
    )


def settings_notes() -> tuple[str, ...]:
    """What the table leaves out."""
    return (
        "*: not the default. The run's study.toml holds all settings as the run was made with them; their sha256 is "
        "below.",
    )


def _flat(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    for section, value in tree.items():
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield (section, key), inner
        else:
            yield ("study", section), value


def _value(tree: Mapping[str, Any], section: str, key: str) -> Any:
    return tree[key] if section == "study" else tree[section][key]


def _text(section: str, key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inside = [f"{printable(name)} {_text(f'{section}.{key}', name, one)}" for name, one in value.items()]
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list):
        return ", ".join(f"{inner:g}" if isinstance(inner, float) else printable(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if f"{section}.{key}" in PATHS:
        value = PurePath(str(value)).name
    return printable(value) or "(none)"
