"""Standard errors and the proportional-hazards check of the federated Cox model: equal to lifelines' and to R's."""

import math

import numpy as np
import pytest
from cox_data_sets import (
    EVERYBODY,
    NAMES,
    RIDGE,
    TIGHT,
    Data,
    Floats,
    at_random,
    data_set,
    federated,
    lifelines_fit,
    one_without_events,
    relative,
)
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import proportional_hazard_test

from fedecg.objectives.linear_cox import CoxFit, CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_inference import (
    baselines,
    cox_inference,
    proportional_hazards,
    residual_sums,
    score_curves,
    site_residuals,
)
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
    site_design,
)


def test_all_events_at_one_time_leave_proportional_hazards_undefined() -> None:
    patients = CoxPatients(np.array([1.0, 1, 4]), np.array([True, True, False]), np.array([[1.0], [0], [0]]))
    check = proportional_hazards(fit_linear_cox([patients], ["x"], EVERYBODY))
    assert np.isnan(check.statistic).all()
    assert math.isnan(check.global_p)


def test_proportional_hazards_of_rossi_are_the_published_output_of_r() -> None:
    # cox.zph(coxph(Surv(week, arrest) ~ fin + age + prio)) as printed by Fox 2002 (and Fox & Weisberg 2011).
    data = Data(data_set("rossi").frame[["T", "E", "fin", "age", "prio"]])
    check = proportional_hazards(fit_linear_cox([data.patients()], data.names, EVERYBODY))
    assert check.statistic == pytest.approx([0.00507, 6.54147, 0.77288], abs=5e-6)
    assert check.p == pytest.approx([0.9433, 0.0105, 0.3793], abs=5e-5)
    assert check.global_statistic == pytest.approx(7.13046, abs=5e-6)
    assert check.global_p == pytest.approx(0.0679, abs=5e-5)


def test_the_default_time_is_1_less_kaplan_meier_just_before_the_event() -> None:
    # Two of six die on day 1, one leaves on day 2, then one of three and one of two die: KM(t-) = 1, 2/3, 4/9.
    x = np.array([[1.0], [0], [1], [0], [0.5], [2]])
    patients = CoxPatients(np.array([1.0, 1, 2, 3, 4, 5]), np.array([1, 1, 0, 1, 1, 0], bool), x)
    fit = fit_linear_cox([patients], ["x"], RIDGE)
    assert fit.edges_days.tolist() == [0, 1, 3, 4]
    by_hand = proportional_hazards(fit, np.array([0, 0, 1 / 3, 5 / 9]))
    assert proportional_hazards(fit).statistic == pytest.approx(by_hand.statistic, rel=1e-12)


def kaplan_meier(data: Data, fit: CoxFit) -> Floats:
    """The curve (bins,) of lifelines, which takes its value after each event."""
    return KaplanMeierFitter().fit(data.frame["T"], data.frame["E"]).predict(fit.edges_days).to_numpy()


@pytest.mark.parametrize("transform", ["km", "identity"])
@pytest.mark.parametrize("name", NAMES)
def test_proportional_hazards_check_equals_that_of_lifelines_at_its_time_values(
    name: str, transform: str
) -> None:
    fit, _ = federated(name, at_random)
    pooled, data = lifelines_fit(name), data_set(name)
    test = proportional_hazard_test(pooled, data.frame, time_transform=transform)
    time = kaplan_meier(data, fit) if transform == "km" else fit.edges_days
    check = proportional_hazards(fit, time)
    assert check.statistic == pytest.approx(test.test_statistic.to_numpy(), rel=1e-6)
    assert check.p == pytest.approx(test.p_value, rel=1e-6, abs=1e-300)
    assert 0 <= check.global_p <= 1


@pytest.mark.parametrize("name", ["rossi", "whas500", "gbsg2"])
def test_proportional_hazards_check_with_strata_equals_that_of_lifelines(name: str) -> None:
    data = data_set(name)
    site = one_without_events(data.frame["E"].to_numpy() == 1, np.random.default_rng(7))
    frame = data.frame.assign(site=site)
    fit = fit_linear_cox(data.sites(site), data.names, CoxSettings(baseline="site"))
    pooled = CoxPHFitter().fit(frame, "T", "E", strata=["site"], fit_options=TIGHT)
    test = proportional_hazard_test(pooled, frame, time_transform="km")
    check = proportional_hazards(fit, kaplan_meier(data, fit))
    assert check.statistic == pytest.approx(test.test_statistic.to_numpy(), rel=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_baseline_equals_that_of_lifelines(name: str) -> None:
    fit, _ = federated(name, at_random)
    hazard = lifelines_fit(name).baseline_cumulative_hazard_.iloc[:, 0]
    assert baselines(fit)[0].at(hazard.index.to_numpy()) == pytest.approx(hazard.to_numpy(), rel=1e-8)


def untied(name: str) -> Data:
    """The data set with tied times drawn apart: lifelines' score residuals depend on the order of tied rows."""
    frame = data_set(name).frame
    apart = np.random.default_rng(3).permutation(len(frame)) * (0.5 / len(frame))
    return Data(frame.assign(T=frame["T"] + apart))


@pytest.mark.parametrize("cluster", ["patient", "site"])
@pytest.mark.parametrize("name", ["rossi", "whas500"])
def test_robust_standard_errors_equal_those_of_lifelines_without_ties(name: str, cluster: str) -> None:
    data = untied(name)
    site = np.random.default_rng(5).integers(0, 12, len(data.frame))
    sites = data.sites(site)
    fit = fit_linear_cox(sites, data.names, EVERYBODY)
    robust = cox_inference(fit, site_residuals(fit, sites), cluster)  # type: ignore[arg-type]
    how = {"robust": True} if cluster == "patient" else {"cluster_col": "site"}
    frame = data.frame if cluster == "patient" else data.frame.assign(site=site)
    pooled = CoxPHFitter().fit(frame, "T", "E", fit_options=TIGHT, **how)
    assert relative(robust.se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-8
    assert robust.p == pytest.approx(pooled.summary["p"][data.names].to_numpy(), rel=1e-6)


def test_robust_errors_clustered_by_the_only_site_are_unknown_not_zero() -> None:
    patients = data_set("rossi").patients()
    fit = fit_linear_cox([patients], data_set("rossi").names, EVERYBODY)
    clustered = cox_inference(fit, site_residuals(fit, [patients]), "site")
    assert np.isnan(clustered.se).all()
    assert np.isnan(clustered.p).all()
    assert (cox_inference(fit, site_residuals(fit, [patients])).se > 0).all()


def test_robust_standard_errors_of_strata_equal_those_of_lifelines() -> None:
    data = untied("rossi")
    site = np.random.default_rng(5).integers(0, 3, len(data.frame))
    sites = data.sites(site)
    fit = fit_linear_cox(sites, data.names, CoxSettings(baseline="site"))
    robust = cox_inference(fit, site_residuals(fit, sites))
    frame = data.frame.assign(site=site)
    pooled = CoxPHFitter().fit(frame, "T", "E", strata=["site"], robust=True, fit_options=TIGHT)
    assert relative(robust.se, pooled.standard_errors_[data.names].to_numpy()) <= 1e-8


def test_a_score_residual_with_ties_is_how_far_weight_on_that_patient_moves_lifelines() -> None:
    # The inverse information times a patient's score residual is d beta / d weight.
    data = data_set("rossi")
    fit = fit_linear_cox([data.patients()], data.names, EVERYBODY)
    (stratum,), inverse = fit.optimum.strata, np.linalg.inv(fit.optimum.information)
    for row in (*np.flatnonzero(data.frame["E"])[[0, 60]], 431):  # two events, a censored patient
        alone = site_design(data.patients(np.array([row])), fit.scaling, fit.edges_days)
        squared = residual_sums(alone, fit.optimum.beta, score_curves(stratum)).by_patient
        found = np.sqrt(np.diag(inverse @ squared @ inverse)) / fit.scaling.sd
        low, high = (
            weighted_fit(data, 1 + weight * (np.arange(len(data.frame)) == row)) for weight in (-1e-4, 1e-4)
        )
        assert found == pytest.approx(np.abs(high - low) / 2e-4, rel=1e-5, abs=1e-9)


def weighted_fit(data: Data, weight: Floats) -> Floats:
    frame = data.frame.assign(w=weight)
    fitted = CoxPHFitter().fit(frame, "T", "E", weights_col="w", robust=True, fit_options=TIGHT)
    return fitted.params_.to_numpy()
