"""What the federated Cox model refuses to fit, and what its errors say."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from cox_data_sets import (
    ABC,
    EVERYBODY,
    RIDGE,
    Data,
    Floats,
    data_set,
    four,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.errors import ModelError
from fedecg.objectives.linear_cox import CoxSettings, exact_grid, fit_linear_cox, maximise
from fedecg.objectives.linear_cox_inference import (
    cox_inference,
)
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
    EventSums,
    RiskSums,
    Scaling,
    event_sums,
    risk_sums,
    site_design,
)


def test_no_event_is_refused() -> None:
    sites = four([[1.0], [2], [3], [5]], (0, 0, 0, 0)) * 2
    with pytest.raises(ModelError, match=r"FECG-331 Cox model: found no event in 8 patients of 2 sites"):
        fit_linear_cox(sites, ["age"], EVERYBODY)


def test_a_constant_covariate_is_named() -> None:
    with pytest.raises(ModelError, match=r"FECG-332 .* 1 of 2 with one value in all 4 patients: sex;"):
        fit_linear_cox(four([[1, 0.1], [3, 0.1], [2, 0.1], [5, 0.1]]), ["age", "sex"], EVERYBODY)


def test_one_patient_has_only_constant_covariates() -> None:
    alone = CoxPatients(np.array([3.0]), np.array([True]), np.array([[1.0]]))
    with pytest.raises(ModelError, match=r"FECG-332 .* 1 of 1 with one value in all 1 patients"):
        fit_linear_cox([alone], ["age"], EVERYBODY)


def test_collinear_covariates_are_named_and_a_penalty_settles_them() -> None:
    data = data_set("rossi")
    frame = data.frame.assign(both=2 * data.frame["age"] - data.frame["prio"])
    more = Data(frame)
    with pytest.raises(ModelError, match=r"FECG-333 .* 1 of 8 directions .* over age, prio, both;"):
        fit_linear_cox([more.patients()], more.names, EVERYBODY)
    assert np.isfinite(fit_linear_cox([more.patients()], more.names, RIDGE).coefficients).all()


def test_a_covariate_that_only_differs_between_sites_has_no_information_with_strata_by_site() -> None:
    data = data_set("rossi")
    site = np.random.default_rng(0).integers(0, 3, len(data.frame))
    more = Data(data.frame.assign(beds=site * 100.0))
    with pytest.raises(ModelError, match=r"FECG-333 .* over beds; .* must differ within sites"):
        fit_linear_cox(more.sites(site), more.names, CoxSettings(baseline="site"))


def test_perfect_separation_is_named() -> None:
    with pytest.raises(ModelError, match=r"FECG-334 .* no optimum over age;"):
        fit_linear_cox(four([[9], [7], [5], [1]]), ["age"], EVERYBODY)


def test_separation_by_a_hair_is_named_too() -> None:
    # Patients 2 and 3 differ by little, so that the likelihood rises for hundreds of standard deviations.
    almost = [
        CoxPatients(
            np.array([5.0, 7, 8, 9]),
            np.array([1, 1, 0, 0], bool),
            np.array([[1], [-0.716], [-0.728], [-1.1]]),
        )
    ]
    with pytest.raises(ModelError, match=r"FECG-334 .* no optimum over age;"):
        fit_linear_cox(almost, ["age"], EVERYBODY)


@given(st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_any_tiny_cohort_is_fitted_or_refused_by_a_code(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patients, columns = int(rng.integers(1, 25)), int(rng.integers(1, 4))
    x = np.where(rng.random((patients, columns)) < 0.5, rng.integers(0, 2, (patients, columns)), 0.5)
    x[:, 0] = rng.normal(size=patients)
    cohort = CoxPatients(rng.integers(0, 10, patients).astype(float), rng.random(patients) < 0.6, x)
    try:
        fit = fit_linear_cox([cohort], ABC[:columns], EVERYBODY)
    except ModelError as error:
        refusal = error.code
    else:
        refusal = ""
        assert np.isfinite(fit.coefficients).all()
        assert (cox_inference(fit).se > 0).all()
        assert fit.optimum.log_likelihood >= fit.optimum.log_likelihood_null
    assert refusal in {"", "FECG-331", "FECG-332", "FECG-333", "FECG-334", "FECG-335"}


def test_a_category_without_events_is_named_and_nothing_else() -> None:
    data = data_set("rossi")
    rare = np.zeros(len(data.frame))
    rare[np.flatnonzero(data.frame["E"] == 0)[:9]] = 1
    more = Data(data.frame.assign(rare=rare))
    with pytest.raises(
        ModelError, match=r"FECG-334 .* no optimum over rare, with values more than 5 .*: rare 9;"
    ):
        fit_linear_cox([more.patients()], more.names, EVERYBODY)


def answers(site: CoxPatients) -> tuple[EventSums, Callable[[Floats], RiskSums]]:
    design = site_design(site, Scaling(np.zeros(1), np.ones(1)), exact_grid([site]))
    return event_sums(design), lambda beta: risk_sums(design, beta, "efron")


def test_a_site_whose_sums_never_answer_to_beta_ends_in_an_error() -> None:
    events, ask = answers(four([[3], [5], [2], [1]])[0])
    with pytest.raises(ModelError, match=r"FECG-335 .* still moves after 60 Newton steps"):
        maximise(lambda _: [ask(np.zeros(1))], [events], ["age"], EVERYBODY)


def test_sums_that_turn_bad_after_the_first_round_end_in_an_error() -> None:
    events, ask = answers(four([[1], [3], [2], [5]])[0])
    good = ask(np.zeros(1))
    with pytest.raises(
        ModelError, match=r"FECG-335 .* no step that raises the likelihood, after 40 halvings"
    ):
        maximise(
            lambda beta: [good if not beta.any() else RiskSums(good.leaving * np.nan, good.tied)],
            [events],
            ["age"],
            EVERYBODY,
        )


def test_a_patient_far_outside_all_others_is_counted_and_not_called_a_separation() -> None:
    # An optimum exists, near -1 per unit; but in it this patient's log hazard would be -3000.
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1000, 2))
    time, censored = rng.exponential(np.exp(x[:, 0])), rng.exponential(2, 1000)
    event, time = time <= censored, np.minimum(time, censored)
    x[0, 0], time[0], event[0] = 3000, 5, False
    halves = [CoxPatients(time[own], event[own], x[own]) for own in (slice(500), slice(500, 1000))]
    with pytest.raises(
        ModelError,
        match=r"FECG-334 .* no optimum over bmi, with values more than 5 standard deviations from the mean: bmi 1;"
        r" .* and no values far out. Look for wrong units and typing errors first",
    ) as refusal:
        fit_linear_cox(halves, ["bmi", "age"], EVERYBODY)
    assert "3000" not in str(refusal.value)
    x[0, 0] = 300
    whole = CoxPatients(time, event, x)
    assert fit_linear_cox([whole], ["bmi", "age"], EVERYBODY).coefficients[0] == pytest.approx(-1, abs=0.1)


def test_values_far_out_are_counted_where_newton_steps_do_not_converge() -> None:
    x = np.where(np.arange(40) == 7, 9.0, 0.0)[:, None]
    events, ask = answers(CoxPatients(np.arange(1.0, 41), np.arange(40) % 2 == 1, x))
    with pytest.raises(
        ModelError,
        match=r"FECG-335 .* 60 Newton steps, with values more than 5 standard deviations .*: age 1;",
    ):
        maximise(lambda _: [ask(np.zeros(1))], [events], ["age"], EVERYBODY)


@pytest.mark.parametrize("factor", [1e300, 1e155, 1e-155])
def test_covariates_whose_squares_leave_the_range_of_numbers_are_named(factor: float) -> None:
    data = data_set("rossi")
    far = Data(data.frame.assign(age=data.frame["age"] * factor))
    with pytest.raises(
        ModelError, match=r"FECG-336 .* 1 of 7 whose squares leave the range of numbers: age;"
    ):
        fit_linear_cox([far.patients()], far.names, EVERYBODY)


@pytest.mark.parametrize("factor", [1e150, 1e-150])
def test_covariates_just_inside_the_range_of_numbers_are_fitted(factor: float) -> None:
    data = data_set("rossi")
    far = Data(data.frame.assign(age=data.frame["age"] * factor))
    found = cox_inference(fit_linear_cox([far.patients()], far.names, EVERYBODY))
    expected = cox_inference(fit_linear_cox([data.patients()], data.names, EVERYBODY))
    assert found.z == pytest.approx(expected.z, rel=1e-9)


@pytest.mark.parametrize("penalty", [1e308, 1e100])
def test_a_penalty_beyond_all_likelihoods_is_refused(penalty: float) -> None:
    with pytest.raises(
        ModelError, match=r"FECG-336 penalty of the Cox model: found a penalty that, times the number"
    ):
        fit_linear_cox(four([[1], [3], [2], [5]]), ["age"], CoxSettings(penalty=penalty))
    largest = fit_linear_cox(four([[1], [3], [2], [5]]), ["age"], CoxSettings(penalty=1e97))
    assert largest.coefficients == pytest.approx(0, abs=1e-90)


def test_covariates_that_are_not_finite_are_named() -> None:
    with pytest.raises(ModelError, match=r"FECG-336 covariates .* 1 of 1 whose squares leave .*: age;"):
        fit_linear_cox(four([[1], [math.nan], [2], [5]]), ["age"], EVERYBODY)


def test_sums_that_are_not_finite_are_refused() -> None:
    events, ask = answers(four([[1], [3], [2], [5]])[0])
    broken = RiskSums(ask(np.zeros(1)).leaving * np.nan, None)
    with pytest.raises(ModelError, match=r"FECG-336 .* 1 of 1 strata with risk sums that are not finite"):
        maximise(lambda _: [broken], [events], ["age"], CoxSettings("breslow"))


def test_events_without_anybody_at_risk_are_refused() -> None:
    events, ask = answers(four([[1], [3], [2], [5]])[0])
    empty = RiskSums(np.zeros_like(ask(np.zeros(1)).leaving), None)
    with pytest.raises(ModelError, match=r"FECG-336 .* bins with events and nobody at risk"):
        maximise(lambda _: [empty], [events], ["age"], CoxSettings("breslow"))
