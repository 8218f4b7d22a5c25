"""docs/bench.py: the page says what the grid's table says, and nothing more."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_page", ROOT / "docs" / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(effect: float) -> pd.DataFrame:
    """Two splits, two algorithms, four seeds; `effect` is what scaffold adds to fedavg on the second split."""
    rng, rows = np.random.default_rng(5), []
    for partition in ("iid", "site"):
        for seed in range(4):
            level = 0.75 + 0.01 * rng.normal()
            for algorithm in ("fedavg", "scaffold"):
                added = effect if (algorithm, partition) == ("scaffold", "site") else 0.0
                row = {
                    "partition": partition,
                    "algorithm": algorithm,
                    "seed": seed,
                    "status": "completed",
                    "code-fingerprint": "0" * 64,
                }
                row["federated.c-index-stratified"] = level + added + 0.001 * rng.normal()
                if algorithm == "fedavg":
                    row["pooled.c-index-stratified"] = level + 0.02 + 0.001 * rng.normal()
                    row["local-own.c-index-stratified"] = level - 0.05 + 0.001 * rng.normal()
                rows.append(row)
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed_and_an_effect_is_named(bench: ModuleType, tmp_path: Path) -> None:
    text = bench.sentences(table(0.03))
    assert "scaffold on the consortium's own 6 hospitals (+0.0" in text
    assert "on 2 of 2 splits" in text
    assert "Of 2 pairs of another algorithm and a split, 1 differ" in text
    lines = bench.algorithms_table(table(0.03), tmp_path).splitlines()
    scaffold = next(line for line in lines if "hospitals | scaffold" in line)
    assert "| 4 | 0.7" in scaffold
    assert "| +0.0" in scaffold  # minus fedavg


def test_without_an_effect_none_is_named(bench: ModuleType) -> None:
    text = bench.sentences(table(0.0))
    assert text.endswith(": none.")
    assert "Fedavg lies between -0.02" in text


def test_a_grid_that_has_not_begun_says_so(bench: ModuleType) -> None:
    empty = table(0.0).iloc[:0]
    assert bench.sentences(empty) == "Nothing is finished yet that could be compared."


def test_the_chosen_round_and_megabytes_come_from_the_cells_own_summaries(
    bench: ModuleType, tmp_path: Path
) -> None:
    for seed, chosen in ((0, 3), (1, 8)):
        cell = tmp_path / "cells" / f"partition=iid,algorithm=scaffold,seed={seed}"
        cell.mkdir(parents=True)
        (cell / "summary.json").write_text(json.dumps({"bytes-per-round": 1_234_567.0, "best-round": chosen}))
    assert bench.told_by_cells(tmp_path, "iid", "scaffold") == ["5.5", "1.23"]
    assert bench.told_by_cells(tmp_path, "iid", "fedavg") == ["", ""]


@pytest.mark.slow
def test_the_page_has_fed_tcga_brca_beside_what_flamby_published(
    bench: ModuleType, data_root: Path, tmp_path: Path
) -> None:
    if not (data_root / "survival" / "fed_tcga_brca").is_dir():
        pytest.skip("no Fed-TCGA-BRCA in the folder of real data")
    text = bench.page(table(0.03), tmp_path, data_root / "survival")
    rows = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if line.count("|") == 6}
    exact = float(rows["pooled"][2].split()[0])
    assert 0.838 <= exact <= 0.842
    for algorithm in ("fedavg", "fedprox", "scaffold"):
        assert abs(float(rows[algorithm][2]) - exact) <= 0.01
        assert abs(float(rows[algorithm][3]) - exact) <= 0.01
    assert abs(float(rows["scaffold"][4]) - exact) <= 0.01
    assert rows["fedavg"][5].strip() == "0.735 (0.175)"
