"""The decision curve: how far it is shown, what is said of it, and what deaths mean for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedecg.report.assessment import DEATHS_NOTE, horizon_notes
from fedecg.report.assessment_words import calibration_words
from fedecg.report.decision import decision_figure, decision_shown, decision_words

Entry = dict[str, Any]
MakeAssessment = Callable[..., Entry]


def test_it_is_shown_from_the_first_threshold_to_where_treating_all_is_far_below_zero(
    assessment: Entry,
) -> None:
    curve = decision_shown(assessment)
    assert curve is not None
    at, stop = 2, curve.thresholds.size
    assert curve.years == "5"
    np.testing.assert_array_equal(curve.thresholds, assessment["decision"]["thresholds"][:stop])
    np.testing.assert_array_equal(curve.treat_all, assessment["decision"]["treat-all"][at][:stop])
    assert curve.treat_all[-1] < -0.5 * curve.treat_all.max()


def test_the_lines_are_the_curve_per_1000_patients(assessment: Entry) -> None:
    curve = decision_shown(assessment)
    assert curve is not None
    axes = decision_figure(assessment, simulated=True).axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(lines["treat by the model"], 1000 * curve.model)
    np.testing.assert_allclose(lines["treat all"], 1000 * curve.treat_all)
    assert set(lines["treat nobody"]) == {0}


def test_a_model_that_treats_all_or_nobody_is_said_to_be_no_better(assessment: Entry) -> None:
    entry = assessment["decision"]
    entry["model"] = [
        [max(value, 0.0) if value is not None else None for value in row] for row in entry["treat-all"]
    ]
    assert "no threshold shown is better served by the model" in decision_words(assessment)[0]


def test_where_the_model_gains_most_is_said_in_words(assessment: Entry) -> None:
    entry = assessment["decision"]
    entry["model"][2] = [max(value, 0.0) for value in entry["treat-all"][2]]
    at = entry["thresholds"].index(0.05)
    entry["model"][2][at] += 0.0123
    assert "at 1 of" in decision_words(assessment)[0]
    assert (
        "the most at 5 %: net 12.3 more true positives per 1,000 patients." in decision_words(assessment)[0]
    )


def test_no_horizon_is_said(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 200, "b": 40}, follow_up_years=0.6)
    assert decision_shown(entry) is None
    assert decision_words(entry)[0] == "Decision curve. No horizon has figures."
    assert decision_figure(entry, simulated=False).axes[0].texts[0].get_text() == "no horizon has figures"


@pytest.mark.parametrize("deaths", [False, True])
def test_deaths_are_explained_beside_every_absolute_risk(
    make_assessment: MakeAssessment, deaths: bool
) -> None:
    entry = make_assessment({"a": 400, "b": 300}, deaths=deaths)
    places = (decision_words(entry)[1], calibration_words(entry)[1], " ".join(horizon_notes(entry)))
    assert [DEATHS_NOTE in text for text in places] == [deaths] * 3
