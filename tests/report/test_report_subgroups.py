"""Subgroups in a report: shown, suppressed where small, and never to be worked out from the rest."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.report.disclosure import NOTHING_WITHHELD, STUDY, WITHHELD
from fedecg.report.subgroup_figure import subgroup_figure
from fedecg.report.subgroups import subgroup_grid, subgroup_notes, subgroup_rows

Entry = dict[str, Any]
NAMES = ("female", "male", "age below 50", "age 50-64", "age 65-74", "age 75 and above")


def assessed(sizes: dict[str, tuple[int, int]]) -> Entry:
    figures = {
        "c-index": 0.7,
        "ci-low": 0.6,
        "ci-high": 0.8,
        "ratio": 1.0,
        "ratio-low": 0.5,
        "ratio-high": 1.9,
    }
    return {
        "part": "test",
        "subgroups": {
            name: {
                "patients": patients,
                "events": events,
                "few-events": events < 30,
                "comparable": 9,
                **figures,
            }
            for name, (patients, events) in sizes.items()
        },
    }


def test_large_subgroups_are_shown_in_full() -> None:
    entry = assessed({"female": (400, 30), "male": (500, 60)})
    assert subgroup_grid(entry).rows == (
        ("female", "400", "30", "0.700 (0.600–0.800)", "1.00 (0.50–1.90)"),
        ("male", "500", "60", "0.700 (0.600–0.800)", "1.00 (0.50–1.90)"),
    )
    assert len(subgroup_notes(entry)) == 1


def test_few_patients_are_told_so_and_the_other_sex_is_withheld_with_them() -> None:
    entry = assessed({"female": (9, 2), "male": (500, 60)})
    assert subgroup_grid(entry).rows == (
        ("female", "fewer than 10", "fewer than 5", WITHHELD, WITHHELD),
        ("male", WITHHELD, WITHHELD, WITHHELD, WITHHELD),
    )
    notes = " ".join(subgroup_notes(entry))
    assert "below 10 patients or 5 events is not shown" in notes
    assert "would give the small ones away: male." in notes


def test_in_a_simulation_nothing_is_withheld_and_the_notes_say_so() -> None:
    entry = assessed({"female": (9, 2), "male": (500, 60)})
    assert subgroup_grid(entry, NOTHING_WITHHELD).rows[0] == (
        "female", "9", "2", "0.700 (0.600–0.800)*", "1.00 (0.50–1.90)",
    )  # fmt: skip
    notes = " ".join(subgroup_notes(entry, NOTHING_WITHHELD))
    assert "Nothing is withheld, however small: this is a simulation" in notes
    assert "Nothing is withheld" not in " ".join(subgroup_notes(entry))


def test_few_events_hide_events_and_figures_but_not_patients() -> None:
    entry = assessed(
        {"age below 50": (300, 4), "age 50-64": (200, 8), "age 65-74": (90, 40), "age 75 and above": (80, 50)}
    )
    rows = subgroup_grid(entry).rows
    assert rows[0] == ("age below 50", "300", "fewer than 5", WITHHELD, WITHHELD)
    assert rows[1] == ("age 50-64", "200", WITHHELD, WITHHELD, WITHHELD)
    assert [row[2] for row in rows[2:]] == ["40", "50"]


def test_two_small_ones_that_are_small_together_take_a_third_with_them() -> None:
    entry = assessed(
        {"age below 50": (60, 0), "age 50-64": (70, 1), "age 65-74": (90, 40), "age 75 and above": (80, 50)}
    )
    assert [row[2] for row in subgroup_grid(entry).rows] == ["fewer than 5", "fewer than 5", WITHHELD, "50"]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=6, max_size=6))
def test_what_is_hidden_in_a_family_is_never_one_alone_nor_small_together(
    sizes: list[tuple[int, int]],
) -> None:
    entry = assessed({name: (max(pair), min(pair)) for name, pair in zip(NAMES, sizes, strict=True)})
    rows = {row.name: row for row in subgroup_rows(entry)}
    for family in (NAMES[:2], NAMES[2:]):
        for column, least in (("patients", STUDY.patients), ("events", STUDY.events)):
            hidden = [name for name in family if isinstance(getattr(rows[name], column), str)]
            shown = [name for name in family if name not in hidden]
            assert all(entry["subgroups"][name][column] >= least for name in shown)
            together = sum(entry["subgroups"][name][column] for name in hidden)
            assert not hidden or not shown or (len(hidden) > 1 and together >= least)
        for name in family:
            assert (rows[name].figures is None) == isinstance(rows[name].events, str)


def test_the_figure_draws_what_may_be_shown_only(make_assessment: Callable[..., Entry]) -> None:
    entry = make_assessment({"a": 900, "b": 400}, female=0.004)
    assert 0 < entry["subgroups"]["female"]["patients"] < STUDY.patients
    texts = [text.get_text() for axes in subgroup_figure(entry, simulated=True).axes for text in axes.texts]
    assert texts == [WITHHELD] * 4
    drawn = subgroup_figure(make_assessment({"a": 900, "b": 400}), simulated=True).axes
    points = [line.get_xdata()[0] for line in drawn[0].lines if line.get_marker() == "o"]
    whole = make_assessment({"a": 900, "b": 400})["subgroups"]
    assert points == pytest.approx([one["c-index"] for one in whole.values()])


def test_an_interval_beyond_the_axis_has_an_arrow_and_no_events_a_dash() -> None:
    entry = assessed({"female": (40, 6), "male": (50, 7)})
    entry["subgroups"]["female"].update({"ratio": 20.0, "ratio-low": 0.01, "ratio-high": 90.0})
    entry["subgroups"]["male"]["c-index"] = None
    concordance, calibration = subgroup_figure(entry, simulated=False).axes
    assert {line.get_marker() for line in calibration.lines} >= {"<", ">"}
    assert [text.get_text() for text in concordance.texts] == ["–"]
    assert "fewer than 30" in concordance.get_title("left")


def test_no_subgroups_is_a_figure_that_says_so() -> None:
    figure = subgroup_figure({"part": "test", "subgroups": {}}, simulated=False)
    assert figure.axes[0].texts[0].get_text() == "no subgroups were asked for"
