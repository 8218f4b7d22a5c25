"""Cox losses: by hand, against lifelines, torchsurv and scikit-survival, at the edges of floats, invariances."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from sksurv.linear_model import CoxPHSurvivalAnalysis

from fedecg.objectives import cox_loss, linear_exp, pooled_cox_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torchsurv 0.2 still uses torch.jit
    from torchsurv.loss.cox import neg_partial_log_likelihood


def random_cohort(seed, patients=40, days=12):
    """Log hazards, events and follow-up with many ties, float64."""
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.normal(size=patients)),
        torch.from_numpy(rng.random(patients) < 0.5),
        torch.from_numpy(rng.integers(1, days, patients).astype(np.float64)),
    )


def naive_cox(log_hazard, event, follow_up_days, ties):
    """The textbook sum, term by term, without a logarithm trick."""
    total = 0.0
    for day in follow_up_days[event].unique():
        dying = event & (follow_up_days == day)
        risk, tied = log_hazard[follow_up_days >= day].exp().sum(), log_hazard[dying].exp().sum()
        events = int(dying.sum())
        for rank in range(events):
            total = total + torch.log(risk - (rank / events * tied if ties == "efron" else 0.0))
        total = total - log_hazard[dying].sum()
    return total / event.sum()


def rossi():
    frame = load_rossi()
    covariates = frame.drop(columns=["week", "arrest"])
    return frame, covariates


def test_three_patients_by_hand():
    eta = torch.tensor([0.0, math.log(2.0), math.log(3.0)], dtype=torch.float64)
    event, days = torch.tensor([True, False, True]), torch.tensor([10.0, 20.0, 30.0])
    # Risk sets: {1, 2, 3} with sum 6 at day 10, {3} at day 30: log(6 / 1) + log(3 / 3), over two events.
    assert math.isclose(cox_loss(eta, event, days).item(), math.log(6.0) / 2, rel_tol=1e-12)


def test_two_tied_events_by_hand():
    eta, days = torch.zeros(3, dtype=torch.float64), torch.tensor([5.0, 5.0, 9.0])
    event = torch.tensor([True, True, False])
    assert math.isclose(cox_loss(eta, event, days, "breslow").item(), math.log(3.0), rel_tol=1e-12)
    efron = (math.log(3.0) + math.log(2.0)) / 2
    assert math.isclose(cox_loss(eta, event, days, "efron").item(), efron, rel_tol=1e-12)


def test_efron_is_the_likelihood_of_lifelines_on_rossi():
    frame, covariates = rossi()
    fitted = CoxPHFitter().fit(frame, "week", "arrest")
    eta = torch.from_numpy(covariates.to_numpy(dtype=float) @ fitted.params_.to_numpy())
    event = torch.from_numpy(frame["arrest"].to_numpy(dtype=bool))
    loss = cox_loss(eta, event, torch.from_numpy(frame["week"].to_numpy(dtype=float)))
    assert math.isclose(-loss.item() * int(event.sum()), fitted.log_likelihood_, rel_tol=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_gradient_vanishes_at_the_coefficients_of_scikit_survival(ties):
    frame, covariates = rossi()
    values = covariates.to_numpy(dtype=float)
    outcome = np.array(list(zip(frame["arrest"] == 1, frame["week"], strict=True)), dtype="bool,float")
    fitted = CoxPHSurvivalAnalysis(ties=ties, tol=1e-12, n_iter=200).fit(values, outcome)
    coefficients = torch.tensor(fitted.coef_, requires_grad=True)
    event, days = torch.from_numpy(outcome["f0"].copy()), torch.from_numpy(outcome["f1"].copy())
    cox_loss(torch.from_numpy(values) @ coefficients, event, days, ties).backward()
    assert coefficients.grad.abs().max() < 1e-8


def value_and_gradient(loss, eta, *arguments):
    leaf = eta.clone().requires_grad_()
    value = loss(leaf, *arguments)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("seed", range(5))
def test_values_and_gradients_are_those_of_the_textbook_and_of_torchsurv(ties, seed):
    eta, event, days = random_cohort(seed)
    ours = value_and_gradient(cox_loss, eta, event, days, ties)
    torch.testing.assert_close(value_and_gradient(naive_cox, eta, event, days, ties), ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsurv announces the ties
        total, gradient = value_and_gradient(neg_partial_log_likelihood, eta, event, days, ties, "sum")
    # torchsurv computes in float32 whatever it is given, and its mean is one over event times, not over events.
    theirs = (total / event.sum(), gradient / event.sum())
    torch.testing.assert_close(theirs, ours, check_dtype=False, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_gradient_agrees_with_central_finite_differences(ties):
    eta, event, days = random_cohort(7, patients=25)
    assert torch.autograd.gradcheck(lambda x: cox_loss(x, event, days, ties), (eta.requires_grad_(),))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_log_hazards_of_plus_and_minus_fifty_are_safe_in_float32(ties):
    eta, event, days = random_cohort(8, patients=200)
    extreme = torch.where(eta > 0, 50.0, -50.0).float().requires_grad_()
    loss = cox_loss(extreme, event, days, ties)
    loss.backward()
    exact = extreme.detach().double().requires_grad_()
    expected = cox_loss(exact, event, days, ties)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(extreme.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_when_all_patients_die_on_one_day_efron_stays_finite_in_float32():
    eta = torch.randn(3000, generator=torch.Generator().manual_seed(0)).mul_(5).requires_grad_()
    loss = cox_loss(eta, torch.ones(3000, dtype=torch.bool), torch.full((3000,), 9.0))
    loss.backward()
    expected = naive_cox(
        eta.detach().double(), torch.ones(3000, dtype=torch.bool), torch.full((3000,), 9.0), "efron"
    )
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(eta.grad).all()


def test_rounding_in_a_huge_tie_gives_no_nan():
    eta = torch.full((20_000,), 0.1, requires_grad=True)  # equal scores, as an untrained head may give them
    loss = cox_loss(eta, torch.ones(20_000, dtype=torch.bool), torch.full((20_000,), 9.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(eta.grad).all()


@pytest.mark.parametrize("patients", [0, 1, 5])
def test_without_events_loss_and_gradient_are_exactly_zero(patients):
    eta = torch.full((patients,), 3.0, requires_grad=True)
    loss = cox_loss(eta, torch.zeros(patients, dtype=torch.bool), torch.arange(1.0, patients + 1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(eta.grad, torch.zeros(patients))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), shift=st.floats(-20, 20), ties=st.sampled_from(["efron", "breslow"]))
def test_order_of_patients_and_a_common_shift_change_nothing(seed, shift, ties):
    eta, event, days = random_cohort(seed)
    order = torch.randperm(len(eta), generator=torch.Generator().manual_seed(seed))
    loss = cox_loss(eta, event, days, ties)
    torch.testing.assert_close(cox_loss(eta[order] + shift, event[order], days[order], ties), loss)
    # Only the order of the times counts.
    torch.testing.assert_close(cox_loss(eta, event, days**3, ties), loss)


def test_linear_exp_is_exp_up_to_the_bound_and_its_tangent_beyond():
    x = torch.tensor([-1.0, 2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    y = linear_exp(x, bound=3.0)
    y.sum().backward()
    edge = math.exp(3.0)
    expected = torch.tensor([math.exp(-1.0), math.exp(2.0), edge, 3 * edge], dtype=torch.float64)
    torch.testing.assert_close(y.detach(), expected)
    slope = torch.tensor([math.exp(-1.0), math.exp(2.0), edge, edge], dtype=torch.float64)
    torch.testing.assert_close(x.grad, slope)


def test_linear_exp_does_not_overflow():
    x = torch.tensor([1e4], requires_grad=True)
    y = linear_exp(x, bound=10.0)
    y.backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_pooled_cox_loss_by_hand():
    eta = torch.tensor([0.0, math.log(2.0)], dtype=torch.float64)
    loss = pooled_cox_loss(
        eta, torch.tensor([True, False]), torch.tensor([0.1, 0.3], dtype=torch.float64), 10.0
    )
    assert math.isclose(loss.item(), (1 * 0.1 - 0 + 2 * 0.3) / 2, rel_tol=1e-12)


def test_pooled_cox_loss_of_nobody_is_zero():
    eta = torch.zeros(0, requires_grad=True)
    loss = pooled_cox_loss(eta, torch.zeros(0, dtype=torch.bool), torch.zeros(0), 10.0)
    loss.backward()
    assert loss.item() == 0
