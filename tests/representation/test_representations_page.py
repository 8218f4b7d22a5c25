"""docs/representations.py: what the page says of the figures follows from the figures."""

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("representations", ROOT / "docs" / "representations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apart(low: float | None, high: float | None) -> dict[str, float | None]:
    return {
        "difference": None if low is None or high is None else (low + high) / 2,
        "ci-low": low,
        "ci-high": high,
    }


def document(page: ModuleType) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document with one difference of each kind for every control."""
    recall = [{"recall": 0.8, "guess": 0.75}]
    shot = {"macro-auc": 0.6, "ci-low": 0.52, "ci-high": 0.7, "classes": [{}, {}]}
    bank = {
        "effective-rank": {"embeddings": 7.0, "targets": 14.0},
        "retrieval": {"ecg-to-statement": recall, "statement-to-ecg": recall},
    }
    paper = {"effective-rank": {"embeddings": 6.9, "targets": 14.0}}
    differences = {
        "superclass@1": apart(0.01, 0.2),
        "subclass@1": apart(-0.1, 0.2),
        "rhythm@1": apart(None, None),
        "zero-shot": apart(-0.3, -0.1),
    }
    found = {
        "sites": {"a": {"test": 30, "train": 9}, "b": {"train": 5}},
        "models": {"bank": bank, "paper loss": paper},
        "differences": dict.fromkeys(page.CONTROLS, differences),
    }
    return found, {"models": {"codes left out": {"zero-shot-left-out": shot}}}


def test_a_difference_is_told_only_where_its_interval_leaves_zero_out(page: ModuleType) -> None:
    said = page.reading(*document(page))
    assert "with 30 test patients" in said
    told = "better in superclass probe; worse in zero-shot; not told apart in subclass probe."
    assert f"`bank` against shuffled text: {told}" in said
    assert "rhythm" not in said


def test_half_the_rank_is_no_collapse_and_less_is(page: ModuleType) -> None:
    said = page.reading(*document(page))
    assert "`bank` does not collapse: effective rank 7.0, its targets' 14.0." in said
    assert "`paper loss` collapses: effective rank 6.9" in said


def test_statements_that_were_not_shown_are_found_only_above_chance(page: ModuleType) -> None:
    found, unseen = document(page)
    assert "not shown are found: zero-shot 0.600 (0.520 to 0.700), 2 code(s)." in page.reading(found, unseen)
    worse = copy.deepcopy(unseen)
    worse["models"]["codes left out"]["zero-shot-left-out"]["ci-low"] = 0.5
    assert "not shown are not shown to be found" in page.reading(found, worse)
    worse["models"]["codes left out"]["zero-shot-left-out"] = None
    assert "too few test ECGs" in page.reading(found, worse)


def test_the_page_that_is_published_has_a_reading_of_its_own_tables(page: ModuleType) -> None:
    text = (ROOT / "docs" / "representations.md").read_text()
    tables, reading = text.split("**What these figures say**")
    for other in page.CONTROLS:
        row = next(line for line in tables.splitlines() if line.startswith(f"| {other} | ") and "to " in line)
        shown = [cell for cell in row.split(" | ")[1:] if "(" in cell]
        better = sum(float(cell.split("(")[1].split(" to ")[0]) > 0 for cell in shown)
        line = next(line for line in reading.splitlines() if f"against {other}:" in line)
        told = line.partition("better in ")[2].partition(";")[0]
        assert len([name for name in told.split(", ") if name]) == better
