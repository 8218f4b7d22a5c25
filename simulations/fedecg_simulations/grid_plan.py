"""The plan of a grid of studies: every cell with its full settings, all problems found before anything runs.

In:  a grid file (TOML): a base study, seeds, overrides for all cells, and axes of named variants.
Out: a `GridPlan`: the cross product of the axes' variants, times the seeds. Nothing is read but these two files.
Called by `fedecg-simulate grid`. (`grid.py` is something else: Flower's grid of nodes in one process.)
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fedecg.config import Section, StudySettings, load_study, parse_settings, settings_sha256
from fedecg.errors import SettingsError
from fedecg.files import in_words

__all__ = ["Cell", "GridPlan", "GridSettings", "Measure", "chosen_cells", "load_grid"]

MAX_CELLS = 10_000
MAX_NAME = 200  # characters of a cell's name: it is the name of a folder
# Columns of the table that are not axes; an axis of that name could not be told from them.
RESERVED = {
    "cell", "code", "code-fingerprint", "exit", "gain-kept", "outcomes", "seconds", "seed", "settings-sha256", "status",
    "test-events",
}  # fmt: skip

Measure = Literal["c-index", "c-index-stratified"]
Tree = dict[str, Any]


def _seed_list(value: object) -> object:
    """`"0-9"` as the list that it stands for."""
    if not isinstance(value, str):
        return value
    ends = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value)
    if ends is None:
        raise ValueError('expected a list of seeds, or "first-last"')
    first, last = map(int, ends.groups())
    if not 0 <= last - first < MAX_CELLS:
        raise ValueError(f"expected first <= last, and at most {MAX_CELLS} seeds")
    return list(range(first, last + 1))


def _each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected each seed once")
    return seeds


def _checked_overrides(overrides: Tree) -> Tree:
    problems = []
    for key, value in overrides.items():
        if not all(key.split(".")):
            problems.append(f"{key!r}: expected section.key")
        elif key == "seed":
            problems.append("seed: expected among `seeds`")
        elif "." not in key and isinstance(value, dict):  # would silently reset the rest of the section
            problems.append(f'{key}: expected key paths in quotes, like "{key}.KEY" = VALUE')
    if problems:
        raise ValueError("; ".join(problems))
    return overrides


Seeds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1),
    BeforeValidator(_seed_list),
    AfterValidator(_each_once),
]
Overrides = Annotated[Tree, AfterValidator(_checked_overrides)]
AxisName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]


class GridReport(Section):
    """What the tables of a grid show."""

    figure: Measure = "c-index-stratified"
    baseline: dict[str, str] = Field(
        default_factory=dict
    )  # axis -> variant that the others are compared with


class GridSettings(Section):
    """A grid file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    base: Annotated[str, Field(min_length=1)]  # study file, absolute or relative to the grid file
    seeds: Seeds
    set: Overrides = Field(default_factory=dict)  # for every cell: key path -> value
    axes: dict[AxisName, Annotated[dict[VariantName, Overrides], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    report: GridReport = GridReport()

    @model_validator(mode="after")
    def _axes_fit_together(self) -> GridSettings:
        problems = [
            f"axes.{axis}: the name of a column of the table" for axis in self.axes if axis in RESERVED
        ]
        for axis, variant in self.report.baseline.items():
            if variant not in self.axes.get(axis, {}):
                problems.append(f"report.baseline: no variant {axis} = {variant!r}")
        for one, other in itertools.combinations(self.axes, 2):
            for key in sorted(_paths(self.axes[one]) & _paths(self.axes[other])):
                problems.append(f"axes.{one} and axes.{other} both set {key}")
        cells = _number_of_cells(self)
        if cells > MAX_CELLS:
            problems.append(f"{cells} cells; at most {MAX_CELLS}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True)
class Cell:
    """One study of a grid."""

    name: str  # AXIS=VARIANT,...,seed=S: names its folder
    variants: Mapping[str, str]  # axis -> variant
    seed: int
    settings: StudySettings
    sha256: str  # of the settings: a finished cell counts for these and no others


@dataclass(frozen=True)
class GridPlan:
    """All cells, those of the first seed first: whatever is finished can be compared seed by seed."""

    name: str
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    measure: Measure
    baseline: Mapping[str, str]


def load_grid(path: str | Path) -> GridPlan:
    """Read a grid file and list its cells, each with settings that have been checked.

    An override replaces what stands at its key path, also where that is a table (`"data.sites" = { a = 100 }`);
    a variant's overrides come after those of `[set]`.

    Raises:
        SettingsError: FECG-111 no readable TOML; FECG-112 every problem of the grid file; FECG-101..103 the base
            study; FECG-113 every problem of the cells' settings, with the cell's name.
    """
    grid = _grid_settings(Path(path))
    base = load_study(Path(path).parent / grid.base)
    return GridPlan(grid.name, tuple(grid.axes), _cells(grid, base), grid.report.figure, grid.report.baseline)


def chosen_cells(plan: GridPlan, only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that every AXIS=VARIANT[,VARIANT] of `only` allows; `seed` counts as an axis.

    Raises:
        SettingsError: FECG-116 a word of another form, or an axis or a variant that the grid does not have.
    """
    there: dict[str, set[str]] = {"seed": {str(cell.seed) for cell in plan.cells}}
    for axis in plan.axes:
        there[axis] = {cell.variants[axis] for cell in plan.cells}
    cells = plan.cells
    for word in only:
        axis, _, variants = word.partition("=")
        allowed = set(variants.split(","))
        if not allowed <= there.get(axis, set()):
            raise SettingsError(
                "FECG-116",
                "--only",
                found="a word that names none of the grid's studies",
                expected="AXIS=VARIANT[,VARIANT] with "
                + "; ".join(f"{name} = {', '.join(sorted(of))}" for name, of in there.items()),
            )
        cells = tuple(cell for cell in cells if _variant(cell, axis) in allowed)
    return cells


def _variant(cell: Cell, axis: str) -> str:
    return str(cell.seed) if axis == "seed" else cell.variants[axis]


def _grid_settings(path: Path) -> GridSettings:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            "FECG-111",
            path.name or str(path),
            found=in_words(error) if isinstance(error, OSError) else f"{error!s:.200}",
            expected="a readable TOML file",
            fix="Check the path and the syntax.",
        ) from None
    try:
        return parse_settings(GridSettings, tree)
    except SettingsError as error:
        raise SettingsError(
            "FECG-112", path.name, found=error.found, expected="keys as in configs/grids/*.toml"
        ) from None


def _cells(grid: GridSettings, base: StudySettings) -> tuple[Cell, ...]:
    cells, problems = [], dict[str, list[str]]()
    for seed, variants in itertools.product(grid.seeds, _combinations(grid)):
        name = ",".join([*(f"{axis}={variant}" for axis, variant in variants.items()), f"seed={seed}"])
        chosen = [grid.set, *(grid.axes[axis][variant] for axis, variant in variants.items()), {"seed": seed}]
        tree = base.model_dump(by_alias=True)
        wrong = [problem for overrides in chosen for problem in _override(tree, overrides)]
        if len(name) > MAX_NAME:
            wrong.append(f"a name of {len(name)} characters; at most {MAX_NAME}")
        try:
            settings = parse_settings(StudySettings, tree)
            cells.append(Cell(name, variants, seed, settings, settings_sha256(settings)))
        except SettingsError as error:
            wrong += [line.strip() for line in error.found.splitlines()[1:]]
        for problem in wrong:
            problems.setdefault(problem, []).append(name)
    _refuse(problems)
    return tuple(cells)


def _combinations(grid: GridSettings) -> Iterable[dict[str, str]]:
    for variants in itertools.product(*grid.axes.values()):
        yield dict(zip(grid.axes, variants, strict=True))


def _override(tree: Tree, overrides: Mapping[str, Any]) -> list[str]:
    """Set key paths in a tree, in place; returns what cannot be set."""
    problems = []
    for path, value in overrides.items():
        *sections, last = path.split(".")
        place: Any = tree
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
        else:
            problems.append(f"{path}: a key below a value")
    return problems


def _refuse(problems: Mapping[str, list[str]]) -> None:
    """One line a problem, with the first cell that has it."""
    if not problems:
        return
    lines = [
        f"{problem} [{names[0]}{f' and {len(names) - 1} more cells' if len(names) > 1 else ''}]"
        for problem, names in problems.items()
    ]
    raise SettingsError(
        "FECG-113",
        "settings of the cells",
        found=f"{len(lines)} problem(s)\n  " + "\n  ".join(lines) + "\n",
        expected="keys and ranges as in configs/*.toml",
    )


def _paths(variants: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {key for overrides in variants.values() for key in overrides}


def _number_of_cells(grid: GridSettings) -> int:
    number = len(grid.seeds)
    for variants in grid.axes.values():
        number *= len(variants)
    return number
