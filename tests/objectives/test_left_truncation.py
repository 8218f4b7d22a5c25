"""Late entries: risk sets by hand, baseline and gradient of lifelines' truncated Cox model, sites that add up."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter, NelsonAalenFitter

from fedecg.objectives import (
    Baseline,
    breslow,
    cox_loss,
    event_counts,
    event_time_grid,
    exit_bin,
    first_bin,
    grouped_loss,
    hazard_sums,
    interval_times,
    pooled_cox_loss,
)

BOUND = 20.0


def truncated(seed, patients=150):
    """Covariate, entry, exit and event of patients who enter up to half a year late, in whole days (ties)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=patients)
    entry = np.where(rng.random(patients) < 0.3, 0, rng.integers(0, 180, patients)).astype(np.float64)
    days = entry + np.ceil(rng.exponential(300 * np.exp(-0.7 * x)))
    return x, entry, np.minimum(days, 500.0), days < 500


def net_sums(eta, entry, days, event, edges):
    last = exit_bin(days, edges)
    sums = hazard_sums(eta, last, len(edges), BOUND, first_bin(entry, event, last, edges))
    return event_counts(event, last, len(edges)), sums


def test_risk_sets_by_hand():
    entry, days = np.array([0.0, 10.0, 12.0, 20.0]), np.array([10.0, 20.0, 15.0, 30.0])
    event = np.array([True, True, False, True])
    edges = event_time_grid(event, days)
    assert edges.tolist() == [0, 10, 20, 30]
    last = exit_bin(days, edges)
    # Who enters on the day of an event is not at risk for it; who comes and goes between two is in no risk set.
    assert first_bin(entry, event, last, edges).tolist() == [0, 2, 2, 3]
    _, sums = net_sums(np.log([1.0, 2.0, 4.0, 8.0]), entry, days, event, edges)
    np.testing.assert_allclose(np.cumsum(sums[::-1])[::-1], [1, 1, 2, 8])


def test_an_event_is_at_risk_in_the_coarse_bin_in_which_it_also_entered():
    edges = np.array([0.0, 30.0])
    entry, days, event = np.array([5.0, 5.0]), np.array([20.0, 20.0]), np.array([True, False])
    assert first_bin(entry, event, exit_bin(days, edges), edges).tolist() == [0, 1]


def test_without_hazards_it_is_the_truncated_nelson_aalen_estimate():
    _, entry, days, event = truncated(1)
    edges = event_time_grid(event, days)
    cumulative = breslow(*net_sums(np.zeros(len(days)), entry, days, event, edges))
    fitted = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(days, event, entry=entry)
    expected = fitted.cumulative_hazard_at_times(days).to_numpy()
    np.testing.assert_allclose(Baseline(edges, cumulative).at(days), expected, rtol=1e-9)


@pytest.mark.parametrize("sites", [1, 5])
def test_its_gradient_is_zero_where_lifelines_fits_the_truncated_cox_model(sites):
    x, entry, days, event = truncated(2)
    days = days + np.arange(len(days)) * 1e-6  # no ties: lifelines has Efron's, this form has Breslow's
    frame = pd.DataFrame({"x": x, "entry": entry, "days": days, "event": event})
    beta = float(CoxPHFitter().fit(frame, "days", "event", entry_col="entry").params_["x"])
    edges = event_time_grid(event, days)
    parts = np.array_split(np.random.default_rng(0).permutation(len(x)), sites)
    sums = [net_sums(beta * x[part], entry[part], days[part], event[part], edges) for part in parts]
    baseline = Baseline(edges, breslow(sum(s[0] for s in sums), sum(s[1] for s in sums)))

    def gradient(at):
        leaf = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        exposure = torch.from_numpy(baseline.exposure(entry, event, days))
        loss = pooled_cox_loss(leaf * torch.from_numpy(x), torch.from_numpy(event), exposure, BOUND)
        loss.backward()
        return leaf.grad.item()

    assert abs(gradient(beta)) < 1e-6
    assert abs(gradient(beta + 0.1)) > 1e-3


def test_exposure_is_the_hazard_at_the_end_where_all_enter_at_the_start():
    x, _, days, event = truncated(3)
    edges = event_time_grid(event, days)
    baseline = Baseline(edges, breslow(*net_sums(x, np.zeros(len(x)), days, event, edges)))
    assert np.array_equal(baseline.exposure(np.zeros(len(x)), event, days), baseline.at(days))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_partial_likelihood_with_late_entries_is_the_sum_over_risk_sets(ties):
    x, entry, days, event = truncated(4, 80)
    eta = torch.from_numpy(x)
    total = 0.0
    for day in np.unique(days[event]):
        dying, at_risk = event & (days == day), (entry < day) & (days >= day)
        risk, tied = np.exp(x[at_risk]).sum(), np.exp(x[dying]).sum()
        for rank in range(int(dying.sum())):
            total += np.log(risk - (rank / dying.sum() * tied if ties == "efron" else 0.0))
        total -= x[dying].sum()
    loss = cox_loss(eta, torch.from_numpy(event), torch.from_numpy(days), ties, torch.from_numpy(entry))
    assert loss.item() == pytest.approx(total / event.sum(), rel=1e-12)


def test_it_is_at_its_least_where_lifelines_fits_the_truncated_model_with_ties():
    x, entry, days, event = truncated(5)
    frame = pd.DataFrame({"x": x, "entry": entry, "days": days, "event": event})
    beta = float(CoxPHFitter().fit(frame, "days", "event", entry_col="entry").params_["x"])
    leaf = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    columns = (torch.from_numpy(column) for column in (event, days))
    cox_loss(leaf * torch.from_numpy(x), *columns, "efron", torch.from_numpy(entry)).backward()
    assert abs(leaf.grad.item()) < 1e-5


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_late_entries_and_log_hazards_of_fifty_are_finite_in_float32(extreme):
    _, entry, days, event = truncated(6, 40)
    eta = torch.where(torch.arange(40) % 2 == 0, extreme, -extreme).float().requires_grad_()
    loss = cox_loss(
        eta, *(torch.from_numpy(column) for column in (event, days)), "efron", torch.from_numpy(entry)
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(eta.grad).all()


def test_the_grouped_likelihood_counts_from_the_entry_on():
    edges, log_baseline = (
        np.array([0.0, 10.0, 20.0]),
        torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64).log(),
    )
    entry, days = np.array([5.0, 12.5, 15.0]), np.array([15.0, 17.5, 25.0])
    times = interval_times(days, entry, edges, horizon_days=30.0)
    event = torch.tensor([True, False, True])
    loss = grouped_loss(torch.zeros(3, dtype=torch.float64), event, times, log_baseline, BOUND)
    first = 0.05 - np.log(1 - np.exp(-0.2))  # half of the first bin, then the event in the second
    second = 0.2 * 0.5  # censored inside the bin in which it came: from a quarter to three quarters of it
    third = 0.1 - np.log(1 - np.exp(-0.4))
    assert loss.item() == pytest.approx((first + second + third) / 3, rel=1e-12)
