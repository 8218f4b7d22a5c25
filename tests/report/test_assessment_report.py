"""What the report says of the final evaluation: tables, notes and lines, whatever is missing."""

import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedecg.report.assessment import (
    compact_horizon_grid,
    evaluation_lines,
    figure_horizon,
    has_horizons,
    horizon_grid,
    horizon_notes,
    log_rank_line,
    short_line,
    site_grid,
    site_notes,
    without_curves,
)
from fedecg.report.assessment_figures import survival_figure
from fedecg.report.assessment_words import calibration_words, survival_words
from fedecg.report.html import report_html, write_report
from fedecg.report.table import print_summary

Entry = dict[str, Any]
Summary = dict[str, Any]
Rounds = list[dict[str, Any]]
MakeAssessment = Callable[..., Entry]


def nulled(value: Any) -> Any:
    """Every float null, as where nothing is defined; counts stay."""
    if isinstance(value, dict):
        return {key: nulled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nulled(inner) for inner in value]
    return None if isinstance(value, float) else value


def all_null(entry: Entry) -> Entry:
    kept = {name: entry[name] for name in ("horizons-days", "part")}
    curves = {
        name: nulled(entry[name]) | {"edges-days": entry[name]["edges-days"]}
        for name in ("survival", "incidence")
    }
    return nulled(entry) | kept | curves


def everything(entry: Entry) -> str:
    """All that is said of an assessment, in one text."""
    cells = [cell for grid in (horizon_grid(entry), site_grid(entry)) for row in grid.rows for cell in row]
    words = (*survival_words(entry), *calibration_words(entry), short_line(entry), log_rank_line(entry))
    return "\n".join([*cells, *horizon_notes(entry), *site_notes(entry), *evaluation_lines(entry), *words])


class _Headings(HTMLParser):
    """Texts of h2, addresses and texts of images, tags that stay open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.titles.append(data)


def printed(summary: Summary, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    print_summary(summary, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_a_row_by_horizon_holds_the_figures_of_that_horizon(assessment: Entry) -> None:
    grid = horizon_grid(assessment)
    brier, auc, risk = (assessment[name] for name in ("brier", "auc", "risk-calibration"))
    assert [row[0] for row in grid.rows] == ["1", "3", "5", "10"]
    row = dict(zip(grid.header, grid.rows[1], strict=True))
    assert row["patients"] == f"{brier['patients'][1]:,}"
    assert row["sites"] == str(brier["sites"][1])
    assert row["events"] == str(brier["cases"][1])
    assert row["O/E (95 % CI)"] == (
        f"{risk['ratio'][1]:.2f} ({risk['ratio-low'][1]:.2f}–{risk['ratio-high'][1]:.2f})"
    )
    assert row["Brier"] == f"{brier['score'][1]:.4f}"
    assert row["scaled"] == f"{brier['scaled'][1]:.3f}"
    assert row["AUC (bounds)"] == f"{auc['auc'][1]:.3f} ({auc['lower'][1]:.3f}–{auc['upper'][1]:.3f})"


def test_observed_over_predicted_is_the_ratio_beside_them(assessment: Entry) -> None:
    grid = horizon_grid(assessment)
    row = dict(zip(grid.header, grid.rows[2], strict=True))
    observed, predicted = (float(row[name].removesuffix(" %")) for name in ("observed", "predicted"))
    assert observed / predicted == pytest.approx(assessment["risk-calibration"]["ratio"][2], rel=0.01)
    assert observed / 100 == pytest.approx(assessment["brier"]["event-fraction"][2], abs=0.002)


def test_a_horizon_that_no_site_reaches_is_dashes_and_a_note_says_so(assessment: Entry) -> None:
    assert horizon_grid(assessment).rows[3] == ("10", *["–"] * 9)
    assert "A dash at 10 years: no site had 20 patients followed beyond that horizon." in horizon_notes(
        assessment
    )
    assert figure_horizon(assessment) == 2


def test_sites_stand_by_name_with_their_own_c_and_a_star_where_events_are_few(assessment: Entry) -> None:
    grid = site_grid(assessment)
    assert [row[0] for row in grid.rows] == ["clinic", "harbour", "rural", "st-anne"]
    own = assessment["sites"]["rural"]
    assert own["few-events"]
    assert grid.rows[2] == (
        "rural",
        "120",
        str(own["events"]),
        f"{own['comparable-within']:,}",
        f"{own['stratified']:.3f} ({own['stratified-ci-low']:.3f}–{own['stratified-ci-high']:.3f})*",
    )
    assert not grid.rows[1][4].endswith("*")
    assert grid.total[:3] == ("all, within sites", "1,660", str(assessment["concordance"]["events"]))
    assert any(line.startswith("*: fewer than 30 events") for line in site_notes(assessment))


def test_the_mean_over_sites_is_told_with_its_limits(assessment: Entry) -> None:
    effects, lines = assessment["heterogeneity"], site_notes(assessment)
    assert lines[0].startswith(f"Mean over 4 sites (random effects): {effects['estimate']:.3f} (")
    assert f"expected in {effects['prediction-low']:.3f}–{effects['prediction-high']:.3f}" in lines[0]
    assert f"tau {effects['tau']:.2f} on the logit scale, I² {effects['i-squared']:.0%}" in lines[0].replace(
        " %", "%"
    )
    assert any("is not the C-index of all patients" in line for line in lines)
    assert "With as few as 4 sites the prediction interval is too narrow." in lines


def test_the_lines_hold_uno_follow_up_calibration_and_what_can_be_seen(assessment: Entry) -> None:
    uno, whole = assessment["uno"], assessment["hazard-calibration"]
    low, median, high = (days / 365.25 for days in assessment["follow-up-days"])
    smallest = assessment["minimal-detectable-difference"]["difference"]
    assert evaluation_lines(assessment) == (
        f"Uno's C up to 5 years: {uno['c-index']:.3f}, within sites {uno['stratified']:.3f} "
        f"({uno['patients']:,} patients, {uno['events']} events).",
        f"Median follow-up: {median:.1f} years (quartiles {low:.1f} and {high:.1f}), reverse Kaplan-Meier.",
        f"Calibration in the large, over the whole follow-up: O/E {whole['ratio']:.2f} "
        f"({whole['ratio-low']:.2f}–{whole['ratio-high']:.2f}); {whole['events']} events, "
        f"{whole['expected']:.1f} expected.",
        f"Calibration slope, over the whole follow-up: {whole['slope']:.2f} "
        f"({whole['slope-low']:.2f}–{whole['slope-high']:.2f}).",
        f"With {whole['events']} events a difference in C below {smallest:.3f} could not be expected to show "
        "(80 % power), two models of unrelated risks.",
    )


def test_a_slope_out_of_range_is_said(assessment: Entry) -> None:
    empty = dict.fromkeys(("slope", "slope-low", "slope-high"))
    assessment["hazard-calibration"].update(empty | {"slope-out-of-range": True})
    assert "Calibration slope, over the whole follow-up: outside −0.5 to 3." in evaluation_lines(assessment)
    assert short_line(assessment).endswith("slope outside −0.5 to 3.")


def test_deaths_are_counted_and_named_a_competing_risk(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 400, "b": 300}, deaths=True)
    assert f"{entry['deaths']} deaths before the event: counted as censored here" in everything(entry)
    assert "Aalen-Johansen estimate with death as competing risk" in survival_words(entry)[1]
    value = entry["incidence-at-horizons"]["value"][2][0][2]
    assert "With the event at year 5: low " in survival_words(entry)[0]
    assert f"high {100 * value:.1f} %" in survival_words(entry)[0]
    assert "deaths as censored" in log_rank_line(entry)


def test_a_test_part_without_events_says_what_is_missing(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 100, "b": 50}, events=False)
    text = everything(entry)
    assert "No event by 1, 3, 5 years: no AUC and no scaled Brier score there." in text
    assert (
        "Mean over sites: –; no site has a C with an interval. 2 sites without a C or its error left out."
        in text
    )
    assert "Uno's C up to 5 years: –; no comparable pair (150 patients, 0 events)." in text
    assert "O/E 0.00 (0.00–" in text
    assert "Calibration slope, over the whole follow-up: not given (no events)." in text
    assert "With 0 events there is no telling what difference in C could be seen." in text
    assert log_rank_line(entry) == "log-rank test: nothing to compare"


def test_one_site_has_no_spread_and_two_no_prediction(make_assessment: MakeAssessment) -> None:
    assert "nothing to say of the spread between sites" in site_notes(make_assessment({"a": 500}))[0]
    two = site_notes(make_assessment({"a": 500, "b": 400}))
    assert "no prediction interval from fewer than 3 sites" in two[0]
    assert not any("too narrow" in line for line in two)


def test_a_study_too_short_for_any_horizon_says_so(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 200, "b": 40}, follow_up_years=0.6)
    assert not has_horizons(entry)
    assert figure_horizon(entry) is None
    assert calibration_words(entry)[0] == "Calibration: no horizon has figures."
    assert "A dash at 1, 3, 5, 10 years: no site had 20 patients followed beyond that horizon." in everything(
        entry
    )
    assert "Uno's C up to 5 years: –; no site had 20 patients followed that long." in everything(entry)
    assert short_line(entry).startswith("No horizon has figures. Uno's C at 5 years –;")
    assert "5 % of all patients are at risk" in survival_words(entry)[1]


@pytest.mark.parametrize("sites", [{"a": 0}, {"a": 1}, {"a": 0, "b": 30}])
def test_next_to_nobody_breaks_nothing(
    make_assessment: MakeAssessment, summary: Summary, rounds: Rounds, sites: dict[str, int]
) -> None:
    entry = make_assessment(sites)
    assert not re.search(r"nan|None|inf\b", everything(entry))
    assert "<h2>Evaluation</h2>" in report_html(summary, rounds, entry)


def test_nulls_everywhere_are_dashes(assessment: Entry, summary: Summary, rounds: Rounds) -> None:
    entry = all_null(assessment)
    assert not re.search(r"nan|None|inf\b", everything(entry))
    assert site_grid(entry).rows[0][4] == "–"
    assert _Headings(report_html(summary, rounds, entry)).open == []
    assert printed(summary | {"assessment": without_curves(entry)})


def test_the_summary_keeps_all_but_the_curves(assessment: Entry) -> None:
    kept = without_curves(assessment)
    assert set(assessment) - set(kept) == {"survival", "incidence"}
    assert kept["survival-at-horizons"] == assessment["survival-at-horizons"]
    assert len(json.dumps(kept)) < 25_000 < len(json.dumps(assessment))


def test_the_terminal_shows_a_table_by_horizon_in_80_columns(assessment: Entry, summary: Summary) -> None:
    without = printed(summary)
    lines = printed(summary | {"assessment": without_curves(assessment)})
    assert all(len(line) <= 80 and "…" not in line for line in lines)
    assert "Federated model by horizon (outcomes SIMULATED)" in [line.strip() for line in lines]
    row = next(line for line in lines if line.startswith("│ 3 "))
    assert (
        tuple(cell.strip() for cell in row.strip("│ ").split("│")) == compact_horizon_grid(assessment).rows[1]
    )
    assert short_line(assessment) in lines
    assert lines[-1] == without[-1]
    assert len(lines) - len(without) <= 10


def test_the_terminal_leaves_out_a_table_of_dashes(make_assessment: MakeAssessment, summary: Summary) -> None:
    entry = make_assessment({"a": 200, "b": 40}, follow_up_years=0.6)
    lines = " ".join(printed(summary | {"assessment": without_curves(entry)}))
    assert "by horizon" not in lines
    assert "No horizon has figures." in lines


def test_the_report_has_an_evaluation_between_comparison_and_sites(
    assessment: Entry, summary: Summary, rounds: Rounds
) -> None:
    page = report_html(summary, rounds, assessment)
    parsed = _Headings(page)
    assert parsed.titles[:3] == ["Comparison", "Evaluation", "Is the attention true?"]
    assert parsed.open == []
    assert [str(image["alt"])[:12] for image in parsed.images] == [
        "Stratified C", "Kaplan-Meier", "Predicted an", "Decision cur", "C-index by s", "Patients, ev", "C-index on t"
    ]  # fmt: skip
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in parsed.images)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    first = " ".join(horizon_grid(assessment).rows[0])
    for part in (first, "rural 120", site_notes(assessment)[0], "all, within sites 1,660"):
        assert part in text, part


def test_the_alternative_texts_hold_the_numbers(assessment: Entry) -> None:
    at_5_years = [group[2] for group in assessment["survival-at-horizons"]["value"]]
    told = ", ".join(
        f"{name} {100 * value:.1f} %"
        for name, value in zip(("low", "middle", "high"), at_5_years, strict=True)
    )
    assert f"Without the event at year 5: {told}; log-rank p < 0.001" in survival_words(assessment)[0]
    risk = assessment["risk-calibration"]
    first = f"{100 * risk['predicted'][2][0]:.1f} % and {100 * risk['observed'][2][0]:.1f} %"
    assert f"at year 5: {first}, " in calibration_words(assessment)[0]
    assert "20 patients of the smallest group" in survival_words(assessment)[1]


def test_a_run_without_an_assessment_still_gives_a_report(plain_page: str) -> None:
    assert "This run has no assessment.json" in plain_page
    assert len(_Headings(plain_page).images) == 3


def test_a_hostile_site_name_is_escaped(assessment: Entry, summary: Summary, rounds: Rounds) -> None:
    assessment["sites"]["<script>alert(1)</script>\x1b[2J"] = assessment["sites"].pop("rural")
    page = report_html(summary, rounds, assessment)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_observed_outcomes_carry_no_label(assessment: Entry, summary: Summary, rounds: Rounds) -> None:
    summary["outcomes"] = "observed"
    page = report_html(summary, rounds, assessment)
    assert "simulated" not in page.lower()
    assert "simulated" not in " ".join(printed(summary | {"assessment": assessment})).lower()


def test_the_same_assessment_gives_the_same_file(
    assessment: Entry, summary: Summary, rounds: Rounds, tmp_path: Path
) -> None:
    first = write_report(summary, rounds, tmp_path / "a.html", assessment).read_bytes()
    shuffled = assessment | {"sites": dict(reversed(list(assessment["sites"].items())))}
    assert write_report(summary, rounds, tmp_path / "b.html", shuffled).read_bytes() == first


def test_figures_that_need_a_horizon_are_left_out_with_a_reason_where_none_has_figures(
    make_assessment: MakeAssessment, summary: Summary, rounds: Rounds
) -> None:
    short = make_assessment({"a": 60, "b": 40}, follow_up_years=0.8)
    page = report_html(summary, rounds, short)
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert (
        "Calibration and decision curve: left out, since no horizon has figures: at no site were 20 patients followed "
        "beyond the first, 1 year." in text
    )
    names = set(re.findall(r'download="([a-z-]+)[.]csv"', page))
    assert names & {"calibration", "decision-curve", "survival"} == {"survival"}
    whole = report_html(summary, rounds, make_assessment({"a": 900, "b": 400}))
    assert "left out, since" not in whole
    assert 'download="calibration.csv"' in whole


def test_numbers_at_risk_can_be_read_on_a_phone(assessment: Entry) -> None:
    """A figure of 5 in fills 358 of a phone's 390 px, so that a point is a pixel."""
    below = survival_figure(assessment, simulated=False).axes[1]
    assert {text.get_fontsize() for text in below.texts} == {10}
    assert below.get_title("left") == "patients at risk"
