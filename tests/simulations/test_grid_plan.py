"""The plan of a grid: which cells, with which settings; everything wrong is said at once, before anything runs."""

from pathlib import Path

import pytest

from fedecg.config import load_study, settings_sha256
from fedecg.errors import SettingsError
from fedecg_simulations.grid_plan import GridPlan, chosen_cells, load_grid

ROOT = Path(__file__).resolve().parents[2]
BASE = """
name = "tiny"
[data.sites]
city = 90
coast = 60
[evaluation]
bootstrap = 20
"""
GRID = """
name = "losses"
base = "studies/base.toml"
seeds = [3, 1]
[set]
"evaluation.comparison" = false
[axes.partition]
iid = { "partition.by" = "iid", "partition.sites" = 2 }
one = { "partition.by" = "iid", "partition.sites" = 1, "data.sites" = { rural = 40 } }
[axes.loss]
cox-batch = { "survival.loss" = "cox-batch" }
cox-pooled = {}
[report]
baseline = { loss = "cox-batch" }
"""


def plan(folder: Path, text: str = GRID, base: str = BASE) -> GridPlan:
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "studies" / "base.toml").write_text(base)
    (folder / "grid.toml").write_text(text)
    return load_grid(folder / "grid.toml")


def test_cells_are_all_combinations_of_variants_times_the_seeds_those_of_a_seed_together(
    tmp_path: Path,
) -> None:
    grid = plan(tmp_path)
    assert [cell.name for cell in grid.cells] == [
        f"partition={partition},loss={loss},seed={seed}"
        for seed in (3, 1)
        for partition in ("iid", "one")
        for loss in ("cox-batch", "cox-pooled")
    ]
    assert (grid.axes, grid.measure, grid.baseline) == (
        ("partition", "loss"), "c-index-stratified", {"loss": "cox-batch"}
    )  # fmt: skip


def test_a_cell_has_the_settings_of_the_base_then_those_for_all_then_those_of_its_variants(
    tmp_path: Path,
) -> None:
    first, *_, last = plan(tmp_path).cells
    assert first.variants == {"partition": "iid", "loss": "cox-batch"}
    assert (first.settings.evaluation.bootstrap, first.settings.evaluation.comparison) == (20, False)
    assert first.settings.partition.sites == 2
    assert first.settings.survival.loss == "cox-batch"
    assert (first.seed, first.settings.seed) == (3, 3)
    assert last.settings.survival.loss == "cox-pooled"
    assert last.settings.data.sites == {"rural": 40}  # a table is replaced, not merged


def test_a_cells_sha256_is_that_of_the_same_study_run_by_hand(tmp_path: Path) -> None:
    cell = plan(tmp_path).cells[0]
    by_hand = load_study(
        tmp_path / "studies" / "base.toml",
        [
            "evaluation.comparison=false",
            "partition.by=iid",
            "partition.sites=2",
            "survival.loss=cox-batch",
            "seed=3",
        ],
    )
    assert cell.sha256 == settings_sha256(by_hand)
    assert len({cell.sha256 for cell in plan(tmp_path).cells}) == 8


def test_a_range_of_seeds_and_a_grid_without_axes(tmp_path: Path) -> None:
    grid = plan(tmp_path, 'name = "seeds"\nbase = "studies/base.toml"\nseeds = "7-10"\n')
    assert [cell.name for cell in grid.cells] == ["seed=7", "seed=8", "seed=9", "seed=10"]


def test_every_misspelt_key_and_wrong_type_of_a_cell_is_named_with_the_cell_that_has_it(
    tmp_path: Path,
) -> None:
    text = GRID.replace('"survival.loss" = "cox-batch"', '"survival.los" = "cox-batch"')
    text = text.replace('"partition.sites" = 2', '"partition.sites" = "two"')
    text = text.replace('"evaluation.comparison" = false', '"evaluation.bootstrap.x" = 1')
    with pytest.raises(
        SettingsError, match=r"FECG-113 settings of the cells: found 3 problem\(s\)"
    ) as caught:
        plan(tmp_path, text)
    message = str(caught.value)
    assert (
        "survival.los: unknown key; did you mean loss? [partition=iid,loss=cox-batch,seed=3 and 3 more cells]"
        in message
    )
    assert "partition.sites: expected a valid integer (found 'two') [partition=iid,loss=cox-b" in message
    assert (
        "evaluation.bootstrap.x: a key below a value [partition=iid,loss=cox-batch,seed=3 and 7 more"
        in message
    )
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[report]", "[reprot]\nx = 1\n[report]", "reprot: unknown key"),
        ("seeds = [3, 1]", "seeds = []", "seeds: expected at least 1 item"),
        ("seeds = [3, 1]", "seeds = [1, 1]", "seeds: expected each seed once"),
        ("seeds = [3, 1]", 'seeds = "3 to 5"', 'expected a list of seeds, or "first-last"'),
        ("seeds = [3, 1]", 'seeds = "5-3"', "expected first <= last"),
        ("seeds = [3, 1]", 'seeds = "0-9999999999"', "at most 10000 seeds"),
        ("seeds = [3, 1]", 'seeds = "0-9999"', "40000 cells; at most 10000"),
        ("seeds = [3, 1]", "seeds = [true]", "seeds.0: expected a valid integer"),
        ('"evaluation.comparison" = false', "evaluation.comparison = false", 'like "evaluation.KEY" = VALUE'),
        ('"evaluation.comparison" = false', "seed = 4", "seed: expected among `seeds`"),
        ('"evaluation.comparison" = false', '"evaluation." = 4', "'evaluation.': expected section.key"),
        ("[axes.loss]", "[axes.seed]", "axes.seed: the name of a column of the table"),
        ("[axes.loss]", '[axes."a/b"]', "axes.a/b"),
        ("cox-pooled = {}", '".." = {}', "axes.loss..."),
        ("[axes.loss]", "[axes.nothing]\n[axes.loss]", "axes.nothing: expected at least 1 item"),
        ("cox-pooled = {}", '"x" = { "partition.by" = "iid" }', "partition and axes.loss both set partition.by"),
        ("baseline = { loss", "baseline = { los", "report.baseline: no variant los = 'cox-batch'"),
        ('= "cox-batch" }\n', '= "cox-batch" }\nfigure = "brier"\n', "report.figure: expected 'c-index'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_grid_file_is_said(old: str, new: str, said: str, tmp_path: Path) -> None:
    head, _, tail = GRID.rpartition(old)
    with pytest.raises(SettingsError, match=r"FECG-112 grid\.toml: found \d problem") as caught:
        plan(tmp_path, head + new + tail)
    assert said in str(caught.value)


def test_all_problems_of_a_grid_file_are_listed_at_once(tmp_path: Path) -> None:
    text = GRID.replace('name = "losses"', 'nmae = "losses"').replace("seeds = [3, 1]", "seeds = 3")
    with pytest.raises(SettingsError, match=r"FECG-112 grid\.toml: found 3 problem") as caught:
        plan(tmp_path, text)
    assert all(part in str(caught.value) for part in ("name: key is missing", "nmae: unknown key", "seeds: "))


def test_a_grid_file_that_is_missing_or_not_toml_and_a_wrong_base_have_codes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-111 none\.toml: found no such file") as caught:
        load_grid(tmp_path / "none.toml")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(
        SettingsError,
        match=r"FECG-111 grid\.toml: found Invalid value \(at line 1, column 5\); expected a read",
    ):
        plan(tmp_path, "a = = 1")
    with pytest.raises(
        SettingsError, match=r"FECG-103 base\.toml: found 1 problem.*\s+survivall: unknown key"
    ):
        plan(tmp_path, base="[survivall]\nrounds = 1\n")
    with pytest.raises(SettingsError, match=r"FECG-101 other\.toml"):
        plan(tmp_path, GRID.replace("studies/base", "studies/other"))


def test_a_name_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    axes = "".join(f"[axes.{'x' * 38}{number}]\n{'y' * 40} = {{}}\n" for number in range(3))
    with pytest.raises(SettingsError, match=r"FECG-113[\s\S]*a name of \d+ characters; at most 200"):
        plan(tmp_path, f'name = "long"\nbase = "studies/base.toml"\nseeds = [0]\n{axes}')


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "grids").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_grid_in_the_repository_has_cells_that_differ(file: Path) -> None:
    cells = load_grid(file).cells
    assert len({cell.sha256 for cell in cells}) == len(cells) > 1


def test_a_part_of_the_cells_can_be_chosen_by_variants_and_seeds(tmp_path: Path) -> None:
    grid = plan(tmp_path)
    assert chosen_cells(grid, []) == grid.cells
    chosen = chosen_cells(grid, ["loss=cox-batch", "seed=1,3", "partition=one"])
    assert [cell.name for cell in chosen] == [
        "partition=one,loss=cox-batch,seed=3", "partition=one,loss=cox-batch,seed=1"
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["loss", "loss=cox", "size=small", "seed=2", "loss=cox-batch,"])
def test_a_choice_that_the_grid_does_not_have_is_refused_with_what_it_has(tmp_path: Path, word: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        chosen_cells(plan(tmp_path), ["partition=iid", word])
    assert refusal.value.code == "FECG-116"
    assert "loss = cox-batch, cox-pooled" in str(refusal.value)
    assert "seed = 1, 3" in str(refusal.value)
