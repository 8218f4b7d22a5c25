"""Sites in a report of hospitals: small ones are withheld everywhere, and never to be worked out from the rest."""

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.config import StudySettings
from fedecg.report.assessment import evaluation_lines, horizon_grid, site_grid, site_notes
from fedecg.report.disclosure import NOTHING_WITHHELD, STUDY, WITHHELD, is_withheld
from fedecg.report.figure_data import sites_csv
from fedecg.report.figures import sites_figure
from fedecg.report.html import report_html
from fedecg.report.model_card import model_card_markdown
from fedecg.report.sites import of_study, site_disclosure
from fedecg.report.study_words import Study
from fedecg.report.table import partition_grid
from fedecg.report.tripod import tripod_markdown

Entry = dict[str, Any]
PARTS = ("train", "validation", "test")


def site(name: str, parts: tuple[int, int, int], events: int) -> Entry:
    return {
        "name": name,
        "patients": sum(parts),
        "events": events,
        "parts": {part: {"patients": size, "events": 1} for part, size in zip(PARTS, parts, strict=True)},
    }


def evaluated(sites: dict[str, tuple[int, int]]) -> Entry:
    """An assessment as far as the table of sites reads it."""
    own = {
        "comparable-within": 7, "few-events": True, "stratified": 0.7, "stratified-ci-low": 0.6,
        "stratified-ci-high": 0.8,
    }  # fmt: skip
    whole = {"patients": sum(p for p, _ in sites.values()), "events": sum(e for _, e in sites.values())}
    entries = {name: {"patients": p, "events": e, **own} for name, (p, e) in sites.items()}
    effects = {"left-out": 0, "sites": 0, "estimate": None}
    return {"sites": entries, "concordance": {**own, **whole}, "heterogeneity": effects}


LARGE = {"a": (400, 60), "b": (300, 50), "c": (200, 40)}


def test_large_sites_are_shown_in_full_and_no_rule_is_told() -> None:
    grid = site_grid(evaluated(LARGE))
    assert [row[1:3] for row in grid.rows] == [("400", "60"), ("300", "50"), ("200", "40")]
    assert "withheld" not in " ".join(site_notes(evaluated(LARGE))).lower()


def test_one_patient_and_no_event_are_withheld_and_the_next_smallest_site_with_them() -> None:
    grid = site_grid(evaluated({**LARGE, "site-2": (1, 0)}))
    rows = {row[0]: row[1:] for row in grid.rows}
    assert rows["site-2"] == ("fewer than 10", "fewer than 5", WITHHELD, WITHHELD)
    assert rows["c"] == (WITHHELD,) * 4
    assert rows["a"][:2] == ("400", "60")
    assert grid.total[1:3] == ("901", "150")
    notes = " ".join(site_notes(evaluated({**LARGE, "site-2": (1, 0)})))
    assert "of a site a number below 10 patients or 5 events is not shown" in notes
    assert "would give the small ones away: c." in notes


def test_few_events_hide_events_and_figures_but_not_patients() -> None:
    rows = {row[0]: row[1:] for row in site_grid(evaluated({**LARGE, "d": (90, 2)})).rows}
    assert rows["d"] == ("90", "fewer than 5", WITHHELD, WITHHELD)
    assert rows["c"][0] == "200"
    assert rows["c"][1:] == (WITHHELD,) * 3


def test_a_study_that_is_small_as_a_whole_withholds_its_total() -> None:
    assert site_grid(evaluated({"a": (6, 1)})).total[1:] == (
        "fewer than 10",
        "fewer than 5",
        WITHHELD,
        WITHHELD,
    )


def test_a_small_part_withholds_the_whole_row_in_every_table_and_the_same_sites_in_all() -> None:
    """Else the patients of the test part are those of the site less train and validation."""
    sites = [site("a", (400, 90, 80), 60), site("b", (300, 70, 60), 50), site("c", (100, 12, 4), 30)]
    assessment = evaluated({"a": (80, 20), "b": (60, 15), "c": (4, 1)})
    decision = site_disclosure(sites, assessment)
    assert decision.patients == {"b", "c"}
    parts = {row[0]: row[1:] for row in partition_grid(sites, decision).rows}
    assert parts["a"] == ("570", "60", "400", "90", "80")
    assert parts["b"] == (WITHHELD,) * 5
    assert parts["c"] == (WITHHELD, WITHHELD, WITHHELD, WITHHELD, "fewer than 10")
    own = {row[0]: row[1:] for row in site_grid(assessment, decision).rows}
    assert (own["b"], own["a"][0]) == ((WITHHELD,) * 4, "80")


def test_patients_of_a_horizon_are_withheld_where_the_total_less_them_tells_of_a_small_site(
    make_assessment: Callable[..., Entry],
) -> None:
    """1,302 patients in all and 1,300 of 2 of the 3 sites: the third has 2."""
    assessment = make_assessment({"a": 900, "b": 400, "tiny": 2})
    assert assessment["brier"]["sites"][0] == 2
    assert horizon_grid(assessment).rows[0][1:3] == (WITHHELD, "2")
    assert "(number of patients withheld, " in evaluation_lines(assessment)[0]
    everybody = site_disclosure([], assessment, NOTHING_WITHHELD)
    assert horizon_grid(assessment, everybody).rows[0][1] == "1,300"
    assert "(1,300 patients, " in evaluation_lines(assessment, everybody)[0]
    assert horizon_grid(make_assessment({"a": 900, "b": 400})).rows[0][1] == "1,300"


def test_a_part_that_is_small_at_all_sites_takes_the_totals_of_the_other_parts_with_it() -> None:
    sites = [site("a", (400, 4, 80), 60), site("b", (300, 3, 60), 50)]
    total = partition_grid(sites, site_disclosure(sites, None)).total
    assert total == ("total", "847", "110", WITHHELD, "fewer than 10", WITHHELD)


numbers = st.tuples(*(st.integers(0, 40),) * 3, st.integers(0, 30), st.integers(0, 12))


@given(st.lists(numbers, min_size=2, max_size=7))
def test_what_is_withheld_in_a_column_is_never_one_site_alone_nor_small_together(
    sizes: list[tuple[int, ...]],
) -> None:
    sites = [site(f"s{at}", (a, b, c), events) for at, (a, b, c, events, _) in enumerate(sizes)]
    assessment = evaluated({f"s{at}": (c, of_test) for at, (_, _, c, _, of_test) in enumerate(sizes)})
    decision = site_disclosure(sites, assessment)
    tables = [
        (partition_grid(sites, decision), partition_grid(sites)),
        (site_grid(assessment, decision), None),
    ]
    for grid, whole in tables:
        plain = whole or site_grid(assessment, site_disclosure([], assessment, NOTHING_WITHHELD))
        for column in range(1, 6 if whole else 3):
            least = STUDY.events if grid.header[column] == "events" else STUDY.patients
            true = [int(row[column].replace(",", "")) for row in plain.rows]
            hidden = [number for number, row in zip(true, grid.rows, strict=True) if is_withheld(row[column])]
            assert all(
                number >= least
                for number, row in zip(true, grid.rows, strict=True)
                if not is_withheld(row[column])
            )
            if hidden and len(hidden) < len(true):
                assert len(hidden) > 1
                assert sum(hidden) >= least


@pytest.fixture
def hospitals(summary: Entry) -> Entry:
    """What a coordinator has: no predictions in one place. clinic-hill: 11 patients, 0 events; one in validation."""
    return summary | {"federated-c-index": {"few-events": False}, "outcomes": "observed"}


def everything(summary: Entry, rounds: list[Entry], assessment: Entry) -> str:
    study = Study(summary, assessment, StudySettings(), {})
    page = report_html(summary, rounds, assessment)
    parts = [page, model_card_markdown(study), tripod_markdown(study), sites_csv(summary)]
    return " ".join(re.sub(r"<[^>]+>", " ", part) for part in parts)


def test_a_report_of_hospitals_shows_no_small_site(
    hospitals: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    text = everything(hospitals, rounds, assessment)
    assert not re.search(r"clinic-hill[\s,|]+(11|0|1)[\s,|]", text)
    assert not re.search(r"rural-3[\s,|]+\d+[\s,|]", text)
    assert re.search(r"clinic-hill\s+withheld\s+fewer than 5", text)
    assert "Disclosure control: of a site a number below 10 patients or 5 events is not shown" in text
    assert "Nothing is withheld" not in text


def test_a_report_of_a_simulation_withholds_nothing_and_says_so(
    summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    text = everything(summary, rounds, assessment)
    assert re.search(r"clinic-hill\s+11\s+0\b", text)
    assert (
        "Nothing is withheld, however small: this is a simulation, its data are public or generated." in text
    )
    assert "fewer than 10" not in text


def test_figure_and_file_of_the_sites_withhold_the_same(hospitals: Entry) -> None:
    decision = of_study(hospitals, None)
    rows = {row["site"]: row for row in csv.DictReader(io.StringIO(sites_csv(hospitals, decision)))}
    axes = sites_figure(hospitals, decision).axes[0]
    texts = {text.get_text().strip() for text in axes.texts}
    assert rows["clinic-hill"]["patients"] == WITHHELD
    assert rows["clinic-hill"]["share NORM"] == ""
    assert WITHHELD in texts
    assert not any(text.startswith("11") for text in texts)
    widths = [bar.get_width() for bar in axes.containers[0]]
    assert widths.count(0) == len(decision.patients) == 2
    assert rows["harbour-general"]["patients"] == "2140"
