"""Protected steps: what one patient can move, how often each is in, how much noise there is, and broken variants."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.privacy import dp_steps
from fedecg.privacy.dp_steps import Patients, Protection, dp_descend
from fedecg.privacy.secret import secret_generator

FEATURES = 3
RATE = 0.3


class Quiet(np.random.Generator):
    """A generator whose uniform numbers let every patient in; its noise is that of its seed."""

    def random(self, size=None, *_):
        return np.zeros(size)


def everybody(seed: int = 0) -> Callable[[], np.random.Generator]:
    return lambda: Quiet(np.random.PCG64(seed))


def protection_with(**changes) -> Protection:
    return replace(Protection(1.0, RATE, 1.0, 10.0, 64, lambda: np.random.default_rng(1)), **changes)


def linear(seed: int = 0) -> nn.Module:
    draw = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return network


def squares(network: nn.Module, data: np.ndarray) -> Callable[[int, np.ndarray], Tensor]:
    """Mean of squared outputs; `data` (n, features), one row a record."""
    return lambda _step, rows: network(torch.from_numpy(data[rows])).square().sum() / len(rows)


def moved(
    data: np.ndarray,
    patient: np.ndarray,
    protection: Protection,
    divisor: float = 1.0,
    steps: int = 1,
    **options,
) -> np.ndarray:
    """What the steps of plain gradient descent at rate 1 subtract from all weights together."""
    network = linear()
    names = [name for name, _ in network.named_parameters()]
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    dp_descend(
        network,
        names,
        torch.optim.SGD(network.parameters(), lr=1.0),
        Patients(np.arange(len(patient)), patient),
        squares(network, data),
        protection,
        steps=steps,
        divisor=divisor,
        **options,
    )
    return (before - nn.utils.parameters_to_vector(network.parameters()).detach()).numpy()


def records(n: int, scale: float = 1.0, seed: int = 7) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, FEATURES))


NOISELESS = {"noise_multiplier": 0.0, "randomness": everybody()}


# What must hold; each broken variant below breaks one of these.
def no_patient_moves_the_sum_by_more_than_the_clip(scale: float = 50.0, clip: float = 0.5) -> bool:
    data, patient = records(6, scale), np.arange(6)
    protection = protection_with(clip=clip, **NOISELESS)
    with_all = moved(data, patient, protection)
    others = [np.flatnonzero(patient != left_out) for left_out in range(6)]
    moves = [with_all - moved(data[kept], patient[kept], protection) for kept in others]
    return all(np.linalg.norm(move) <= clip for move in moves)


def noise_has_the_stated_scale(multiplier: float = 2.0, clip: float = 0.5) -> bool:
    protection = protection_with(noise_multiplier=multiplier, clip=clip)
    draws = [
        moved(np.zeros((0, FEATURES)), np.zeros(0, dtype=int), replace(protection, randomness=_seeded(seed)))
        for seed in range(400)
    ]
    spread = np.concatenate(draws) / (multiplier * clip)  # 400 x 21 numbers
    statistic = float(np.sum(spread**2))
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], spread.size)
    return bool(low < statistic < high and stats.kstest(spread, "norm").pvalue > 1e-6)


def every_patient_is_in_a_step_at_the_stated_rate() -> bool:
    patients, rng, draws = Patients(np.arange(10), np.arange(10)), np.random.default_rng(3), 3000
    inside, sizes = np.zeros(10), np.zeros(11)
    for _ in range(draws):
        drawn = patients.drawn(RATE, rng)
        inside[drawn] += 1
        sizes[len(drawn)] += 1
    of_each = np.sum((inside - draws * RATE) ** 2 / (draws * RATE * (1 - RATE)))
    # Independent of each other: how many are in is binomial.
    expected = draws * stats.binom.pmf(np.arange(11), 10, RATE)
    often = expected >= 5
    observed = np.append(sizes[often], sizes[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    of_sizes = np.sum((observed - wanted) ** 2 / wanted)
    return bool(stats.chi2.sf(of_each, 10) > 1e-6 and stats.chi2.sf(of_sizes, often.sum()) > 1e-6)


def _seeded(seed: int) -> Callable[[], np.random.Generator]:
    return lambda: np.random.default_rng(seed)


def test_no_patient_moves_the_noiseless_sum_by_more_than_the_clip():
    assert no_patient_moves_the_sum_by_more_than_the_clip()


@settings(max_examples=40, deadline=None)
@given(
    data=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=FEATURES, max_size=FEATURES), min_size=2, max_size=7
    ),
    clip=st.floats(1e-3, 1e3),
    physical_batch=st.integers(1, 4),
)
def test_whatever_a_patients_records_hold_the_sum_moves_by_at_most_the_clip(data, clip, physical_batch):
    table, patient = np.array(data), np.arange(len(data))
    protection = protection_with(clip=clip, physical_batch=physical_batch, **NOISELESS)
    difference = moved(table, patient, protection) - moved(table[1:], patient[1:], protection)
    # The weights that the difference is read off are rounded themselves.
    assert np.linalg.norm(difference) <= clip * (1 + 1e-9) + 1e-9 * clip * len(data) + 1e-12


def test_small_gradients_are_not_clipped_and_add_up_to_that_of_the_sum():
    data = records(5, 0.01)
    network = linear()
    squares(network, data)(0, np.arange(5)).mul(5).backward()
    expected = nn.utils.parameters_to_vector([weight.grad for weight in network.parameters()])
    found = moved(data, np.arange(5), protection_with(clip=1e6, **NOISELESS))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)


def test_a_patient_with_many_records_counts_once_and_each_record_gets_its_turn():
    patient = np.array([7] * 30 + [8])
    patients, rng = Patients(np.arange(31), patient), np.random.default_rng(0)
    assert len(patients) == 2
    seen = np.zeros(31)
    for _ in range(3000):
        drawn = patients.drawn(0.5, rng)
        assert len(drawn) == len(set(patient[drawn])) <= 2
        seen[drawn] += 1
    assert stats.chisquare(seen[:30]).pvalue > 1e-6
    assert abs(seen[:30].sum() - 1500) < 5 * np.sqrt(3000 * 0.25)
    data, clip = records(31, 100.0), 0.25
    protection = protection_with(clip=clip, **NOISELESS)
    without = moved(data[30:], patient[30:], protection)
    assert np.linalg.norm(moved(data, patient, protection) - without) <= clip


def test_rows_of_patients_are_found_in_whatever_order_they_stand():
    patient = np.array([5, 3, 5, 3, 9])
    rows = np.array([40, 41, 42, 43, 44])
    patients, rng = Patients(rows, patient), np.random.default_rng(2)
    for _ in range(50):
        drawn = patients.drawn(1.0, rng)
        assert [patient[row - 40] for row in drawn] == [3, 5, 9]


def test_every_patient_is_in_a_step_at_the_stated_rate():
    assert every_patient_is_in_a_step_at_the_stated_rate()


def test_noise_has_the_stated_scale():
    assert noise_has_the_stated_scale()


def test_noise_is_drawn_anew_for_every_parameter_and_every_step():
    nobody = (np.zeros((0, FEATURES)), np.zeros(0, dtype=int))
    one = moved(*nobody, protection_with())
    assert len(np.unique(one)) == len(one)
    two = moved(*nobody, protection_with(), steps=2) - one
    assert not np.isclose(one, two).any()


def test_two_rounds_of_the_same_study_have_other_noise():
    protection = protection_with(randomness=secret_generator)
    data, patient = records(4), np.arange(4)
    assert not np.isclose(moved(data, patient, protection), moved(data, patient, protection)).any()
    assert Protection(1.0, RATE, 1.0, 10.0, 64).randomness is secret_generator


def test_the_seed_of_torch_and_numpy_has_no_part_in_noise_and_sampling():
    found = []
    for _ in range(2):
        np.random.seed(1)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            found.append(moved(records(4), np.arange(4), protection_with(randomness=secret_generator)))
    assert not np.isclose(*found).any()


@pytest.mark.parametrize("patients", [0, 3, 50])
def test_the_noised_sum_is_divided_by_a_number_that_everybody_knows(patients):
    data, patient = records(patients), np.arange(patients)
    one = moved(data, patient, protection_with(randomness=everybody()))
    np.testing.assert_allclose(
        moved(data, patient, protection_with(randomness=everybody()), divisor=64.0), one / 64, rtol=1e-9
    )


def test_a_step_without_patients_is_noise_alone_and_is_made():
    data, patient = records(5), np.arange(5)
    never = protection_with(sampling_rate=0.0)
    steps: list[tuple[int, int]] = []
    found = moved(data, patient, never, steps=3, progress=lambda *at: steps.append(at))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert found.all()
    quiet = moved(data, patient, replace(never, noise_multiplier=0.0), steps=3)
    assert not quiet.any()


@pytest.mark.parametrize("physical_batch", [1, 4, 7, 20])
def test_parts_that_fit_in_memory_add_up_to_one_step(physical_batch):
    data, patient = records(20), np.arange(20)
    whole = moved(data, patient, protection_with(clip=0.7, physical_batch=64), steps=3)
    parts = moved(data, patient, protection_with(clip=0.7, physical_batch=physical_batch), steps=3)
    assert np.abs(whole - parts).max() < 1e-6


def test_fedprox_pulls_after_clipping_and_noise_and_is_not_clipped():
    mu, data, patient = 0.5, records(4), np.arange(4)
    protection = protection_with(clip=1e-3, **NOISELESS)
    plain, pulled = (
        [moved(data, patient, protection, steps=steps, proximal_mu=pull) for steps in (1, 2)]
        for pull in (0.0, mu)
    )
    np.testing.assert_allclose(pulled[0], plain[0], rtol=1e-12)  # the first step starts where it pulls to
    # The second: the sum's own share differs by nothing that 1e-3 of clipping lets through, the pull is mu * way.
    way = pulled[1] - pulled[0]
    np.testing.assert_allclose(way, (plain[1] - plain[0]) - mu * pulled[0], atol=1e-5)
    strong = moved(data, patient, protection, steps=2, proximal_mu=1e3) - pulled[0]
    assert np.linalg.norm(strong) > 100 * protection.clip


def test_a_patient_whose_gradient_is_not_finite_adds_nothing():
    data, patient = records(4), np.arange(4)
    protection = protection_with(**NOISELESS)
    expected = moved(data[1:], patient[1:], protection)
    for value in (np.nan, np.inf, 1e200):
        broken = data.copy()
        broken[0] = value
        network_sees = moved(broken, patient, protection)
        assert np.isfinite(network_sees).all()
        if value != 1e200:
            np.testing.assert_allclose(network_sees, expected, rtol=1e-9)


def test_weights_that_noise_drives_out_of_all_bounds_are_refused():
    with pytest.raises(ModelError, match=r"(?s)FECG-323.*noised weights that are not finite.*batch-size"):
        moved(records(2), np.arange(2), protection_with(noise_multiplier=1e308))


def test_only_the_named_tensors_move_and_the_mode_comes_back():
    network = linear().eval()
    before = [weight.detach().clone() for weight in network.parameters()]
    last = list(network[2].parameters())
    dp_descend(
        network,
        ["2.weight", "2.bias"],
        torch.optim.SGD(last, lr=1.0),
        Patients(np.arange(3), np.arange(3)),
        squares(network, records(3)),
        protection_with(),
        steps=2,
        divisor=8,
    )
    changed = [not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True)]
    assert changed == [False, False, True, True]
    assert not network.training
    assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())


def test_the_loss_that_stays_at_home_is_the_mean_over_the_patients_drawn():
    data, network = records(6), linear()
    expected = float(squares(network, data)(0, np.arange(6)).detach())
    found = dp_descend(
        network,
        [name for name, _ in network.named_parameters()],
        torch.optim.SGD(network.parameters(), lr=1e-12),
        Patients(np.arange(6), np.arange(6)),
        squares(network, data),
        protection_with(physical_batch=4, **NOISELESS),
        steps=2,
        divisor=8,
    )
    assert found == pytest.approx(expected, rel=1e-6)


# Broken on purpose: each must be caught by one of the above.
def test_without_clipping_a_patient_moves_the_sum_too_far(monkeypatch):
    monkeypatch.setattr(dp_steps, "clip_factors", lambda rows, _clip: torch.ones(len(rows[0])))
    assert not no_patient_moves_the_sum_by_more_than_the_clip()


def test_a_clip_of_each_parameter_by_itself_moves_the_sum_too_far(monkeypatch):
    right = dp_steps._weighted
    monkeypatch.setattr(
        dp_steps, "_weighted", lambda row, _factors: right(row, dp_steps.clip_factors([row], 0.5))
    )
    assert not no_patient_moves_the_sum_by_more_than_the_clip()


def test_half_of_the_noise_is_noticed(monkeypatch):
    right = dp_steps.add_noise
    monkeypatch.setattr(
        dp_steps,
        "add_noise",
        lambda sums, p, rng: right(sums, replace(p, noise_multiplier=p.noise_multiplier / 2), rng),
    )
    assert not noise_has_the_stated_scale()


def test_noise_that_is_scaled_with_the_patients_present_is_noticed(monkeypatch):
    right = dp_steps.add_noise
    monkeypatch.setattr(dp_steps, "add_noise", lambda sums, p, rng: [right(sums, p, rng) for _ in range(2)])
    assert not noise_has_the_stated_scale()


def test_unsampled_patients_counted_as_sampled_are_noticed(monkeypatch):
    monkeypatch.setattr(Patients, "drawn", lambda self, *_: self._rows[self._first])
    assert not every_patient_is_in_a_step_at_the_stated_rate()


def test_batches_of_a_fixed_size_are_noticed(monkeypatch):
    monkeypatch.setattr(
        Patients, "drawn", lambda self, rate, rng: rng.permutation(self._rows)[: round(rate * len(self))]
    )
    assert not every_patient_is_in_a_step_at_the_stated_rate()
