"""The whole evaluation: figures of lifelines and scikit-survival from sums, sites in any order, contradictions."""

from dataclasses import replace

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation import (
    AssessmentPlan,
    RiskTimeGrid,
    absolute_risk,
    assess,
    assessment,
    assessment_entry,
    check_site_sums,
    concordance,
    concordance_interval,
    risk_grid,
    stratified_concordance,
    stratified_interval,
)
from fedecg.objectives import (
    Baseline,
    breslow,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
    public_grid,
)


def site_sums(time, cause, eta, plan):
    """Everybody is in the first subgroup, every other patient by risk in the second."""
    odd = np.argsort(np.argsort(eta, kind="stable"), kind="stable") % 2 == 1
    members = np.stack([np.ones(len(eta), dtype=bool), odd], axis=1)
    return assessment.site_sums(time, cause, eta, members, plan)


HORIZONS = np.array([300.0, 900.0])
TAU = 900.0


def patients(seed=0, number=900):
    """Times in whole days, causes with deaths, log hazards with ties, five sites of unequal size and follow-up."""
    rng = np.random.default_rng(seed)
    site = rng.choice(5, size=number, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    eta = np.round(rng.normal(size=number), 2)
    event, death = rng.exponential(2500 * np.exp(-eta)), rng.exponential(9000, size=number)
    censored = rng.uniform(400, np.array([2000, 1800, 2500, 2200, 1900])[site])
    time = np.ceil(np.minimum(np.minimum(event, death), censored))
    cause = np.where(event <= np.minimum(death, censored), 1, np.where(death <= censored, 2, 0))
    return time, cause, eta, site


def plan_for(time, cause, eta, fine=False):
    """Study-like bins; `fine`: a bin for every distinct time and risk, in which all figures are exact."""
    event = cause == 1
    edges = event_time_grid(event, time)
    last = exit_bin(time, edges)
    sums = hazard_sums(eta, last, len(edges), 20.0)
    baseline = Baseline(edges, breslow(event_counts(event, last, len(edges)), sums))
    times = np.unique(time) if fine else np.linspace(60, 1800, 23)
    risks = np.unique(eta)[1:] if fine else risk_grid(0.0, 1.0, 50)
    bins = np.union1d(0.0, np.unique(time)) if fine else np.union1d(np.arange(0, 2600, 30.0), HORIZONS)
    return AssessmentPlan(
        grid=RiskTimeGrid(times, risks),
        edges_days=bins,
        group_cuts=np.array([-0.5, 0.5]),
        calibration_cuts=risk_grid(0.0, 1.0, 10),
        horizons_days=HORIZONS,
        tau_days=TAU,
        centre=0.0,
        subgroups=("all", "odd"),
        baseline=baseline,
    )


def by_site(time, cause, eta, site, plan):
    return {
        f"site-{name}": site_sums(time[site == name], cause[site == name], eta[site == name], plan)
        for name in np.unique(site)
    }


def test_one_site_has_the_figures_of_lifelines_and_scikit_survival():
    time, cause, eta, _ = patients()
    plan = plan_for(time, cause, eta, fine=True)
    result = assess({"only": site_sums(time, cause, eta, plan)}, HORIZONS)
    event = cause == 1
    outcome = Surv.from_arrays(event, time)
    risk = absolute_risk(eta, plan.baseline, HORIZONS)
    # Brier score: scikit-survival wants survival probabilities.
    np.testing.assert_allclose(
        result.brier.score, brier_score(outcome, outcome, 1 - risk, HORIZONS)[1], atol=1e-12
    )
    np.testing.assert_allclose(
        result.auc.auc, cumulative_dynamic_auc(outcome, outcome, eta, HORIZONS)[0], atol=1e-9
    )
    assert result.uno.c_index == pytest.approx(
        concordance_index_ipcw(outcome, outcome, eta, TAU)[0], abs=1e-9
    )
    assert result.concordance.c_index == concordance(time, event, eta).c_index
    high = eta >= 0.5
    curve = KaplanMeierFitter().fit(time[high], event[high])
    expected = curve.survival_function_at_times(np.unique(time)).to_numpy()
    np.testing.assert_allclose(result.survival.survival[2, 1:], expected, atol=1e-10)
    # Breslow's baseline of these very patients balances expected and observed events.
    assert result.hazard_calibration.ratio == pytest.approx(1.0, abs=1e-9)
    assert result.deaths == np.sum(cause == 2)


def test_sums_of_sites_agree_with_the_pooled_arrays_on_study_bins():
    time, cause, eta, site = patients(1, 4000)
    plan = plan_for(time, cause, eta)
    sites = by_site(time, cause, eta, site, plan)
    result, pooled = assess(sites, HORIZONS), assess({"all": site_sums(time, cause, eta, plan)}, HORIZONS)
    event = cause == 1
    assert result.concordance.stratified == stratified_concordance(time, event, eta, site).c_index
    assert abs(result.concordance.c_index - concordance(time, event, eta).c_index) < 0.005
    np.testing.assert_array_equal(result.survival.survival, pooled.survival.survival)
    np.testing.assert_array_equal(result.incidence.incidence, pooled.incidence.incidence)
    assert result.log_rank.chi_square == pooled.log_rank.chi_square
    assert result.hazard_calibration.slope == pytest.approx(pooled.hazard_calibration.slope, abs=1e-9)
    # Weighted by each site's own censoring, which the pooled arrays do not know: close, and not equal.
    np.testing.assert_allclose(result.brier.score, pooled.brier.score, atol=0.01)
    assert sorted(result.sites) == sorted(sites)
    own = concordance_interval(time[site == 0], event[site == 0], eta[site == 0])
    assert result.sites["site-0"].stratified == own.c_index


def test_the_order_of_sites_and_a_site_without_patients_change_nothing():
    time, cause, eta, site = patients(2)
    plan = plan_for(time, cause, eta)
    sites = by_site(time, cause, eta, site, plan)
    backwards = dict(reversed(sites.items()))
    result, other = assess(sites, HORIZONS), assess(backwards, HORIZONS)
    assert result.uno == other.uno
    assert result.concordance == other.concordance
    np.testing.assert_array_equal(result.brier.score, other.brier.score)
    nobody = site_sums(np.zeros(0), np.zeros(0), np.zeros(0), plan)
    with_nobody = assess({**sites, "empty": nobody}, HORIZONS)
    assert with_nobody.uno == result.uno
    assert with_nobody.heterogeneity.left_out == 1
    np.testing.assert_array_equal(with_nobody.brier.score, result.brier.score)


@pytest.mark.parametrize("bins", [1, 2, 4])
def test_the_error_of_the_stratified_c_does_not_depend_on_the_grid(bins):
    time, cause, eta, site = patients(6)
    cuts = RiskTimeGrid(np.linspace(200, 1500, bins)[1:], risk_grid(0.0, 1.0, bins))
    plan = replace(plan_for(time, cause, eta), grid=cuts)
    result = assess(by_site(time, cause, eta, site, plan), HORIZONS).concordance
    exact = stratified_interval(time, cause == 1, eta, site)
    assert result.stratified_se == pytest.approx(exact.se, rel=1e-9)
    assert result.stratified_ci_low == pytest.approx(exact.ci_low, rel=1e-9)


def test_a_risk_read_off_a_binned_baseline_is_that_of_the_exact_one():
    rng = np.random.default_rng(7)
    eta = rng.normal(size=20_000)
    time = rng.exponential(40_000 * np.exp(-eta))
    event, time = time < 4000, np.ceil(np.minimum(time, 4000))
    risks = []
    for edges in (event_time_grid(event, time), np.union1d(public_grid(30.0, 7305.0), [365.25, 1095.75])):
        last = exit_bin(time, edges)
        sums = hazard_sums(eta, last, len(edges), 20.0)
        baseline = Baseline(edges, breslow(event_counts(event, last, len(edges)), sums))
        risks.append(absolute_risk(np.zeros(1), baseline, np.array([365.25, 1095.75])))
    np.testing.assert_allclose(risks[1], risks[0], rtol=0.01)


def test_columns_that_cannot_be_used_are_refused_before_anything_is_computed():
    time, cause, eta, _ = patients(8, 5)
    plan = plan_for(time, cause, eta)
    with pytest.raises(CohortError, match="FECG-236 time"):
        site_sums(np.array(["1970-01-01"] * 5), cause, eta, plan)
    with pytest.raises(CohortError, match="FECG-235"):
        assessment.site_sums(time, cause, np.zeros((5, 2)), np.zeros((5, 2), dtype=bool), plan)


def test_names_of_sites_reach_the_document_as_they_are():
    time, cause, eta, _ = patients(9, 200)
    plan = plan_for(time, cause, eta)
    one = site_sums(time, cause, eta, plan)
    entry = assessment_entry(plan, "test", {"site_a": one, "site-a": one})
    assert sorted(entry["sites"]) == ["site-a", "site_a"]
    assert "c-index" in entry["sites"]["site_a"]


def test_a_part_without_events_has_no_figures_and_no_error():
    time, _, eta, _ = patients(3, 60)
    plan = plan_for(*patients(3, 60)[:3])
    result = assess({"a": site_sums(time, np.zeros(60), eta, plan)}, HORIZONS)
    assert np.isnan(result.concordance.c_index)
    assert np.isnan(result.hazard_calibration.slope)
    assert (result.survival.survival == 1).all()
    assert np.isnan(result.uno.c_index)


@pytest.mark.parametrize(
    ("part", "field", "value", "named"),
    [
        ("hazard", "patients", 7, "calibration"),
        ("brier", "patients", np.array([10**6, 1]), "Brier score"),
        ("auc", "sites", np.array([2, 1]), "AUC"),
        ("uno", "events", 10**6, "Uno's C"),
        ("risk", "patients", np.full((2, 10), 10**6), "risk groups"),
        ("risk", "predicted", np.full((2, 10), 10.0**6), "risk groups"),
        ("brier", "case_loss", np.full(2, 1e4), "Brier score"),
        ("brier", "case_weight", np.zeros(2), "Brier score"),
        ("auc", "within_credit", np.full(2, 1e9), "AUC"),
        ("uno", "within_credit", 1e9, "Uno's C"),
        ("hazard", "moments", -np.ones((29, 3)), "calibration"),
        ("hazard", "moments", np.ones((29, 3)) * [1.0, 5.0, 1.0], "calibration"),
        ("decision", "treated_cases", np.full((2, 60), 1e6), "decision curve"),
        ("subgroups", "events", np.array([99, 99]), "subgroups"),
    ],
)
def test_sums_that_no_patients_have_are_refused_by_name_of_the_part(part, field, value, named):
    time, cause, eta, _ = patients(4, 100)
    plan = plan_for(time, cause, eta)
    sums = site_sums(time, cause, eta, plan)
    check_site_sums(sums, plan, "city")
    broken = replace(sums, **{part: replace(getattr(sums, part), **{field: value})})
    with pytest.raises(
        FederationError, match=rf"FECG-527 sums of city: found 1 part\(s\) .*: {named};"
    ) as refusal:
        check_site_sums(broken, plan, "city")
    assert "same version" in refusal.value.fix


def test_a_life_table_of_other_patients_is_refused():
    time, cause, eta, _ = patients(5, 100)
    plan = plan_for(time, cause, eta)
    sums, fewer = site_sums(time, cause, eta, plan), site_sums(time[1:], cause[1:], eta[1:], plan)
    with pytest.raises(FederationError, match="FECG-527 .*life table"):
        check_site_sums(replace(sums, life=fewer.life), plan, "city")


def test_the_risk_of_a_boundless_log_hazard_is_certain():
    baseline = Baseline(np.array([0.0, 100.0]), np.array([0.0, 0.1]))
    assert absolute_risk(np.array([-800.0, 0.0, 800.0]), baseline, np.array([200.0])).ravel().tolist() == [
        0.0,
        pytest.approx(1 - np.exp(-0.1)),
        1.0,
    ]
