"""What must not move the federated Cox model: order, sites, units; and numbers far out, where digits get lost."""

import numpy as np
import pytest
from cox_data_sets import ABC, EVERYBODY, RIDGE, Data, Floats, data_set, relative
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedecg.objectives.linear_cox import CoxSettings, exact_grid, fit_linear_cox
from fedecg.objectives.linear_cox_inference import (
    cox_inference,
    site_residuals,
)
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
    Scaling,
    Stratum,
    event_sums,
    partial_likelihood,
    risk_sums,
    site_design,
)

# ---------------------------------------------------------------- numbers far out


def by_definition(x: Floats, event: NDArray[np.bool_], beta: Floats) -> tuple[float, Floats]:
    """Breslow likelihood and gradient of patients in the order of their times, each risk set shifted by its maximum."""
    eta, value, gradient = x @ beta, 0.0, np.zeros(beta.size)
    for row in np.flatnonzero(event):
        shift = eta[row:].max()
        share = np.exp(eta[row:] - shift)
        value += eta[row] - shift - np.log(share.sum())
        gradient += x[row] - share @ x[row:] / share.sum()
    return value, gradient


def far_out(seed: int) -> tuple[CoxPatients, Floats]:
    """300 patients whose log hazards reach from -50 to 50 under the true beta."""
    rng = np.random.default_rng(seed)
    x, beta = rng.uniform(-1, 1, (300, 2)), np.array([40.0, -10.0])
    x[:4] = [[1, -1], [-1, 1], [1, -1], [-1, 1]]
    time = np.argsort(np.argsort(rng.exponential(size=300) * np.exp(-x @ beta))) + 1.0
    order = np.argsort(time)
    return CoxPatients(time[order], rng.random(300) < 0.7, x[order]), beta


def test_sums_are_right_where_log_hazards_reach_50() -> None:
    patients, beta = far_out(1)
    assert np.abs(patients.covariates @ beta).max() == 50
    design = site_design(patients, Scaling(np.zeros(2), np.ones(2)), exact_grid([patients]))
    found = partial_likelihood(Stratum(event_sums(design), risk_sums(design, beta, "breslow")), beta)
    value, gradient = by_definition(patients.covariates, patients.event, beta)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.gradient == pytest.approx(gradient, rel=1e-9, abs=1e-9)


def test_newton_steps_reach_the_optimum_where_log_hazards_reach_50() -> None:
    patients, beta = far_out(1)
    fit = fit_linear_cox([patients], ["a", "b"], EVERYBODY)
    _, gradient = by_definition(patients.covariates, patients.event, fit.coefficients)
    inverse = np.linalg.inv(fit.optimum.information) * np.outer(1 / fit.scaling.sd, 1 / fit.scaling.sd)
    assert np.abs(inverse @ gradient / fit.coefficients).max() <= 1e-9
    assert np.abs(fit.coefficients / beta - 1).max() < 0.3
    assert fit.optimum.rounds >= fit.optimum.steps + 1


def test_covariates_far_from_zero_lose_no_digits() -> None:
    data = data_set("rossi")
    shifted = Data(data.frame.assign(age=data.frame["age"] + 1e6, prio=data.frame["prio"] * 1e-6))
    found = fit_linear_cox([shifted.patients()], data.names, EVERYBODY).coefficients
    expected = fit_linear_cox([data.patients()], data.names, EVERYBODY).coefficients
    expected = expected * np.where(np.array(data.names) == "prio", 1e6, 1)
    assert relative(found, expected) <= 1e-8


# ---------------------------------------------------------------- invariances


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[CoxPatients, NDArray[np.int64]]:
    """20 to 60 patients with many ties, in up to four sites."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    patients = draw(st.integers(20, 60))
    x = np.column_stack([rng.normal(size=patients), rng.integers(0, 2, patients), rng.normal(size=patients)])
    x[:2, 1] = 0, 1
    event = rng.random(patients) < draw(st.floats(0.1, 0.9))
    event[0] = True
    time = rng.integers(1, draw(st.integers(3, 40)), patients).astype(np.float64)
    return CoxPatients(time, event, x), rng.integers(0, draw(st.integers(1, 4)), patients)


def split(patients: CoxPatients, site: NDArray[np.int64], order: Floats | None = None) -> list[CoxPatients]:
    rows = np.arange(site.size) if order is None else order
    return [
        CoxPatients(patients.follow_up_days[own], patients.event[own], patients.covariates[own])
        for own in (rows[site[rows] == number] for number in range(site.max() + 1))
    ]


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.randoms(use_true_random=False), st.sampled_from(["shared", "site"]))
def test_order_of_patients_and_of_sites_leaves_beta_the_same(cohort, random, baseline) -> None:  # type: ignore[no-untyped-def]
    patients, site = cohort
    options = CoxSettings(baseline=baseline, penalty=0.01)
    expected = fit_linear_cox(split(patients, site), ABC, options).coefficients
    order = np.array(random.sample(range(site.size), site.size))
    sites = split(patients, site, order)
    random.shuffle(sites)
    assert fit_linear_cox(sites, ABC, options).coefficients == pytest.approx(expected, rel=1e-8, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.sampled_from(["efron", "breslow"]))
def test_splitting_a_site_in_two_or_adding_an_empty_one_changes_nothing(cohort, ties) -> None:  # type: ignore[no-untyped-def]
    patients, site = cohort
    options = CoxSettings(ties, penalty=0.01)
    pooled = fit_linear_cox([patients], ABC, options)
    finer = [*split(patients, 2 * site + np.arange(site.size) % 2), split(patients, site + 1)[0]]
    fit = fit_linear_cox(finer, ABC, options)
    assert len(finer[-1].event) == 0
    assert fit.coefficients == pytest.approx(pooled.coefficients, rel=1e-8, abs=1e-10)
    robust, whole = (cox_inference(a, site_residuals(a, b)) for a, b in ((fit, finer), (pooled, [patients])))
    assert np.nan_to_num(robust.se) == pytest.approx(np.nan_to_num(whole.se), rel=1e-7, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.sampled_from([1 / 365.25, 24.0]))
def test_units_of_time_and_of_covariates_do_not_matter(cohort, unit) -> None:  # type: ignore[no-untyped-def]
    patients, _ = cohort
    first = fit_linear_cox([patients], ABC, RIDGE)
    scaled = CoxPatients(
        patients.follow_up_days * unit, patients.event, patients.covariates * np.array([1e3, 1, 1e-3]) + 7
    )
    second = fit_linear_cox([scaled], ABC, RIDGE)
    assert second.coefficients * np.array([1e3, 1, 1e-3]) == pytest.approx(
        first.coefficients, rel=1e-7, abs=1e-9
    )
    assert cox_inference(second).p == pytest.approx(cox_inference(first).p, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_a_patient_who_leaves_before_the_first_event_only_moves_the_scale(cohort) -> None:  # type: ignore[no-untyped-def]
    patients, _ = cohort
    mean = patients.covariates.mean(axis=0)
    more = CoxPatients(
        np.append(patients.follow_up_days, 0.25),
        np.append(patients.event, False),
        np.vstack([patients.covariates, mean]),
    )
    scaling = Scaling(mean, np.ones(3))
    beta = np.array([0.3, -0.2, 0.1])
    both = [
        partial_likelihood(Stratum(event_sums(design), risk_sums(design, beta, "efron")), beta)
        for design in (site_design(who, scaling, exact_grid([patients])) for who in (patients, more))
    ]
    assert both[1].value == pytest.approx(both[0].value, rel=1e-12)
    assert both[1].gradient == pytest.approx(both[0].gradient, rel=1e-9, abs=1e-12)
