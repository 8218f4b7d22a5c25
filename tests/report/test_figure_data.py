"""The CSV beside every figure: what the figure shows, no finer, and harmless in a spreadsheet."""

import base64
import csv
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedecg.report.assessment_figures import shown_curves
from fedecg.report.decision import decision_shown
from fedecg.report.figure_data import (
    calibration_csv,
    comparison_csv,
    csv_link,
    csv_text,
    decision_csv,
    rounds_csv,
    sites_csv,
    subgroups_csv,
    survival_csv,
)
from fedecg.report.html import report_html

Entry = dict[str, Any]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_begins_like_a_formula_gets_a_quotation_mark(start: str) -> None:
    told = next(csv.reader(io.StringIO(csv_text((f"{start}1+1",), ()))))
    assert told[0].startswith("'")


def test_numbers_stay_numbers_and_what_is_unknown_is_empty() -> None:
    text = csv_text(("a", "b"), [(-0.25, None), (float("nan"), 1234567), ('say "x", y', 1 / 3)])
    assert text == 'a,b\r\n-0.25,\r\n,1234567\r\n"say ""x"", y",0.333333\r\n'


def test_a_link_holds_the_very_bytes() -> None:
    kind, _, content = csv_link("é,1\r\n").partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(content, validate=True).decode("utf-8-sig") == "é,1\r\n"


def test_comparison_rounds_and_sites_are_those_of_the_summary(summary: Entry, rounds: list[Entry]) -> None:
    federated = next(row for row in rows_of(comparison_csv(summary)) if row["model"] == "federated")
    assert float(federated["stratified-c"]) == summary["columns"]["federated"]["c-index-stratified"]
    assert len(rows_of(rounds_csv(rounds))) == 12
    sites = rows_of(sites_csv(summary))
    assert (sites[0]["site"], sites[0]["patients"]) == ("harbour-general", "2140")
    assert sum(float(sites[0][name]) for name in sites[0] if name.startswith("share")) == pytest.approx(
        1, abs=1e-5
    )


def test_curves_are_those_that_are_drawn(assessment: Entry) -> None:
    curves, rows = shown_curves(assessment), rows_of(survival_csv(assessment))
    low = [row for row in rows if row["risk-group"] == "low"]
    assert [float(row["survival"]) for row in low] == pytest.approx(curves.value[0].tolist(), rel=1e-5)
    at_risk = [int(row["at-risk"]) for row in low if row["at-risk"]]
    assert at_risk[0] == curves.at_risk[0, 0]
    assert len(at_risk) < 15  # as often as the figure says it, not by bin


def test_deaths_make_it_incidence(make_assessment: Callable[..., Entry]) -> None:
    rows = rows_of(survival_csv(make_assessment({"a": 400, "b": 300}, deaths=True)))
    assert float(rows[0]["incidence"]) == 0


def test_calibration_and_decision_are_those_of_the_figures(assessment: Entry) -> None:
    groups, rows = assessment["risk-calibration"], rows_of(calibration_csv(assessment))
    assert [float(row["observed"]) for row in rows] == pytest.approx(
        [value for value in groups["observed"][2] if value is not None], rel=1e-5
    )
    curve = decision_shown(assessment)
    assert curve is not None
    np.testing.assert_allclose(
        [float(row["model"]) for row in rows_of(decision_csv(assessment))], curve.model, rtol=1e-5
    )


def test_suppressed_subgroups_are_suppressed_in_the_file_too(make_assessment: Callable[..., Entry]) -> None:
    entry = make_assessment({"a": 900, "b": 400}, female=0.004)
    rows = {row["subgroup"]: row for row in rows_of(subgroups_csv(entry))}
    assert rows["female"]["patients"] == "fewer than 10"
    assert rows["male"]["patients"] == rows["male"]["c-index"] == "withheld"
    assert float(rows["age 50-64"]["ratio"]) == pytest.approx(
        entry["subgroups"]["age 50-64"]["ratio"], rel=1e-5
    )


def test_no_horizon_is_a_header_alone(make_assessment: Callable[..., Entry]) -> None:
    entry = make_assessment({"a": 200, "b": 40}, follow_up_years=0.6)
    assert rows_of(calibration_csv(entry)) == rows_of(decision_csv(entry)) == []


def test_every_figure_of_the_report_has_its_data_below(
    summary: Entry, rounds: list[Entry], assessment: Entry
) -> None:
    summary["sites"][0]["name"] = "=HYPERLINK(1)"
    page = report_html(summary, rounds, assessment)
    links = re.findall(r'download="([a-z-]+\.csv)" href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)
    names = ["comparison", "survival", "calibration", "decision-curve", "subgroups", "sites", "rounds"]
    assert [name for name, _ in links] == [f"{name}.csv" for name in names]
    assert page.count("<figure>") == len(names)
    contents = {name: base64.b64decode(content).decode("utf-8-sig") for name, content in links}
    assert "'=HYPERLINK(1)" in contents["sites.csv"]
