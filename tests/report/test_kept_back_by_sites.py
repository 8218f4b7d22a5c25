"""What a site has kept back is said in the report, and is no nought anywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedecg.evaluation import AssessmentPlan, RiskTimeGrid, site_sums
from fedecg.evaluation.entry import assessment_entry
from fedecg.federation.sums import CONCORDANCE, PARTS, AssessReply
from fedecg.objectives import Baseline
from fedecg.report import findings
from fedecg.report.disclosure import NOTHING_WITHHELD
from fedecg.report.sites import evaluated, site_disclosure, withheld_by

PLAN = AssessmentPlan(
    grid=RiskTimeGrid(np.array([300.0, 900.0]), np.array([0.0])),
    edges_days=np.array([0.0, 365.25, 730.5]),
    group_cuts=np.array([0.0]),
    calibration_cuts=np.array([0.0]),
    horizons_days=np.array([365.25]),
    tau_days=730.5,
    centre=0.0,
    subgroups=("men",),
    baseline=Baseline(np.array([0.0]), np.array([0.1])),
    min_at_risk=5,
)


def sums(number: int):
    rng = np.random.default_rng(number)
    return site_sums(
        rng.uniform(10, 1500, number),
        rng.integers(0, 2, number),
        rng.normal(size=number),
        np.ones((number, 1), dtype=bool),
        PLAN,
    )


def told(number: int, withheld: tuple[str, ...] = ()):
    """As it comes out of a site's reply."""
    return AssessReply.of("site", sums(number), withheld).sums(PLAN)


def test_a_site_that_is_too_small_is_named_and_counted_nowhere() -> None:
    everything = (CONCORDANCE, *PARTS)
    entry = assessment_entry(PLAN, "test", {"city": told(200, ("auc",)), "hamlet": told(0, everything)})
    assert entry["withheld"] == {"city": ["auc"], "hamlet": list(everything)}
    assert list(entry["sites"]) == ["city"]
    assert entry["concordance"]["patients"] == 200
    notes = site_disclosure([], entry, NOTHING_WITHHELD).notes()
    withheld = (
        "withheld by hamlet (below their thresholds of 10 patients or 5 events behind a figure, or what their "
        "site.toml says instead)"
    )
    assert f"Not evaluated: {withheld}." in notes
    assert evaluated(entry) is entry  # the city's figures are shown
    test = {"patients": 200, "events": 90}
    line = findings.notes({"test": test, "withheld-by": withheld_by(entry)})[0]
    assert line.startswith("Test part: 200 patients, 90 events, ")
    assert line.endswith(f"; the rest {withheld}.")
    assert "Withheld by city itself, too few patients behind it: auc." in notes


def test_where_nothing_is_kept_back_the_entry_is_what_it_was() -> None:
    entry = assessment_entry(PLAN, "test", {"city": told(200)})
    assert "withheld" not in entry
    assert entry == assessment_entry(PLAN, "test", {"city": replace(sums(200), withheld=())})
    assert site_disclosure([], entry).notes() == ()


def test_with_nobody_left_there_are_no_figures_and_no_error() -> None:
    entry = assessment_entry(PLAN, "test", {"hamlet": told(0, (CONCORDANCE, *PARTS))})
    assert entry["concordance"]["c-index"] is None
    assert entry["withheld"]["hamlet"][0] == CONCORDANCE
    assert evaluated(entry) is None
