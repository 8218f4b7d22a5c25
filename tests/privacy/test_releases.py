"""The three noised sums: their sensitivity, the scale and source of their noise, what a coordinator makes of them.

Every property is a function that looks at the module as it is. It holds for the module; and for each way in which a
mechanism could be broken, put into the module's place, it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from fedecg.errors import PolicyError
from fedecg.evaluation import RiskTimeGrid, concordance
from fedecg.objectives import Baseline, breslow, exit_bin, first_bin, hazard_sums
from fedecg.privacy import releases
from fedecg.privacy.accountant import Spend

EDGES = np.array([0.0, 30.0, 60.0, 90.0, 120.0])
GRID = RiskTimeGrid(time_cuts_days=EDGES[1:], risk_cuts=np.array([-1.0, 0.0, 1.0]))
BINS, BOUND = len(EDGES), 10.0


@dataclass(frozen=True)
class People:
    """Outcomes and scores; `of` makes them from what hypothesis draws."""

    event: np.ndarray
    days: np.ndarray
    entry_days: np.ndarray
    log_hazard: np.ndarray

    @staticmethod
    def of(rows: list[tuple[bool, float, float, float]]) -> "People":
        event, days, entry, score = zip(*rows, strict=True) if rows else ((), (), (), ())
        days = np.array(days, dtype=np.float64)
        return People(
            np.array(event, dtype=bool), days, days * np.array(entry), np.array(score, dtype=np.float64)
        )

    @property
    def bins(self) -> np.ndarray:
        return exit_bin(self.days, EDGES)

    @property
    def first(self) -> np.ndarray:
        return first_bin(self.entry_days, self.event, self.bins, EDGES)

    @property
    def patient(self) -> np.ndarray:
        return np.arange(len(self.days))


# name -> (what is released, its noised release); looked up when called, so that a broken module is seen
SUMS: dict[str, Callable[[People], np.ndarray]] = {
    "events": lambda some: releases.event_sums(some.event, some.bins, BINS),
    "hazard": lambda some: releases.clipped_hazard_sums(some.log_hazard, some.bins, BINS, BOUND),
    "hazard, late": lambda some: releases.clipped_hazard_sums(
        some.log_hazard, some.bins, BINS, BOUND, some.first
    ),
    "histogram": lambda some: releases.histogram(some.days, some.event, some.log_hazard, GRID),
}
NOISED: dict[str, Callable[..., releases.Released]] = {
    "events": lambda some, noise, rng=None: releases.noised_events(
        some.event, some.bins, BINS, some.patient, "train", noise, rng
    ),
    "hazard": lambda some, noise, rng=None: releases.noised_hazard_sums(
        some.log_hazard, some.bins, BINS, BOUND, some.patient, "train", noise, None, rng
    ),
    "hazard, late": lambda some, noise, rng=None: releases.noised_hazard_sums(
        some.log_hazard, some.bins, BINS, BOUND, some.patient, "train", noise, some.first, rng
    ),
    "histogram": lambda some, noise, rng=None: releases.noised_histogram(
        some.days, some.event, some.log_hazard, GRID, some.patient, "test", noise, rng
    ),
}
SENSITIVITY = {"events": 1.0, "hazard": 1.0, "hazard, late": 2**0.5, "histogram": 1.0}
NOBODY = People.of([])
scores = st.one_of(st.floats(-30, 30), st.sampled_from([-1.0, 0.0, 1.0, 700.0, float("inf"), float("nan")]))
one = st.tuples(st.booleans(), st.floats(0.5, 200.0), st.sampled_from([0.0, 0.0, 0.3, 0.9]), scores)


def keeps_sensitivity(name: str) -> bool:
    """Over data sets and patients that hypothesis looks for: the change by one patient is within what is stated."""
    changes: list[float] = []

    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[Phase.generate],  # the smallest example costs ten times the first one
    )
    @given(st.lists(one, max_size=12), one)
    def adding_one_patient(rows: list, more: tuple) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # of what is not clipped
            change = SUMS[name](People.of([*rows, more])) - SUMS[name](People.of(rows))
            changes.append(float(np.linalg.norm(change)))

    adding_one_patient()
    return all(change <= SENSITIVITY[name] * (1 + 1e-9) for change in changes)


def keeps_scale(name: str) -> bool:
    """Noise of 3 times the sensitivity in every cell: its variance is within what chance allows once in a million."""
    rng = np.random.default_rng(20261121)
    drawn = np.concatenate([NOISED[name](NOBODY, 3.0, rng).values.ravel() for _ in range(2000)])
    squares = np.sum((drawn / (3.0 * SENSITIVITY[name])) ** 2)
    in_scale = chi2.ppf(1e-6, drawn.size) < squares < chi2.ppf(1 - 1e-6, drawn.size)
    return bool(
        in_scale and abs(drawn.mean()) < norm.ppf(1 - 1e-6) * 3.0 * SENSITIVITY[name] / drawn.size**0.5
    )


def keeps_secret(name: str) -> bool:
    """Two releases of the same numbers differ in every cell, whatever seeds a study has set."""
    seen = []
    for _ in range(2):
        np.random.seed(101)
        torch.manual_seed(101)
        seen.append(NOISED[name](NOBODY, 1.0).values)
    return bool((seen[0] != seen[1]).all())


CHECKS = {"sensitivity": keeps_sensitivity, "scale": keeps_scale, "secret": keeps_secret}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_sum_keeps_what_it_states(name, check):
    assert CHECKS[check](name)


def a_patient_in_two_bins(event, exit_bin, n_bins):
    return sum(
        np.bincount(np.minimum(exit_bin[event] + step, n_bins - 1), minlength=n_bins) for step in (0, 1)
    )


def bins_from_the_first_to_the_last(log_hazard, exit_bin, n_bins, bound, first_bin=None):
    share = np.nan_to_num(np.exp(np.minimum(log_hazard, np.log(bound))) / bound)
    return np.array([share[exit_bin >= one].sum() for one in range(n_bins)])


def no_clip(log_hazard, exit_bin, n_bins, bound, first_bin=None):
    with np.errstate(over="ignore"):
        return np.bincount(exit_bin, weights=np.nan_to_num(np.exp(log_hazard) / bound), minlength=n_bins)


def pair_counts(days, event, log_hazard, grid):
    usable = np.isfinite(log_hazard)
    pairs = concordance(days[usable], event[usable], log_hazard[usable])
    return np.array([pairs.concordant, pairs.discordant, pairs.tied_risk], dtype=np.float64)


def honest_noise(scale: float, seed: int | None = None):
    noised = releases._noised

    def broken(sums, sensitivity, noise_multiplier, generator):
        generator = np.random.default_rng(seed) if seed is not None else generator
        return noised(sums, sensitivity, scale * noise_multiplier, generator)

    return broken


def noise_where_somebody_is(sums, sensitivity, noise_multiplier, generator):
    return np.where(sums > 0, sums + noise_multiplier * generator.standard_normal(sums.shape), 0.0)


def sensitivity_of_one_bin(sums, sensitivity, noise_multiplier, generator):
    return sums + noise_multiplier * generator.standard_normal(sums.shape)


BROKEN = [
    ("two bins of a patient counted as one", "event_sums", a_patient_in_two_bins, "events", "sensitivity"),
    (
        "risk sets in place of exit bins",
        "clipped_hazard_sums",
        bins_from_the_first_to_the_last,
        "hazard",
        "sensitivity",
    ),
    ("no clip", "clipped_hazard_sums", no_clip, "hazard", "sensitivity"),
    ("pair counts sent", "histogram", pair_counts, "histogram", "sensitivity"),
    ("half the noise", "_noised", honest_noise(0.5), "events", "scale"),
    ("no noise: the exact sums of an own H0", "_noised", honest_noise(0.0), "hazard", "scale"),
    ("no noise where nobody is", "_noised", noise_where_somebody_is, "histogram", "scale"),
    ("entry times forgotten", "_noised", sensitivity_of_one_bin, "hazard, late", "scale"),
    ("noise from the study's seed", "_noised", honest_noise(1.0, seed=101), "events", "secret"),
    (
        "noise from numpy's own state",
        "secret_generator",
        lambda: np.random.RandomState(np.random.randint(2**31)),
        "histogram",
        "secret",
    ),
    (
        "noise from torch's seed",
        "secret_generator",
        lambda: np.random.default_rng(torch.initial_seed()),
        "hazard",
        "secret",
    ),
]


@pytest.mark.parametrize(
    ("place", "broken", "name", "check"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_broken_mechanism_is_caught(monkeypatch, place, broken, name, check):
    monkeypatch.setattr(releases, place, broken)
    assert not CHECKS[check](name)


def test_a_patient_in_two_rows_is_refused_by_all_three():
    twice = People.of([(True, 10.0, 0.0, 0.0)] * 3)
    patient = np.array([7, 7, 9])
    for release in (
        lambda: releases.noised_events(twice.event, twice.bins, BINS, patient, "train", 1.0),
        lambda: releases.noised_hazard_sums(twice.log_hazard, twice.bins, BINS, BOUND, patient, "train", 1.0),
        lambda: releases.noised_histogram(
            twice.days, twice.event, twice.log_hazard, GRID, patient, "test", 1.0
        ),
    ):
        with pytest.raises(PolicyError) as refused:
            release()
        assert str(refused.value) == (
            "FECG-439 patients of a noised sum: found 1 of 3 rows of a patient who has another; expected one row a"
            " patient: the noise covers one. Keep one index ECG a patient in train, validation and test."
        )


def test_each_release_says_what_it_costs():
    spends = {name: noised(NOBODY, 2.5).spend for name, noised in NOISED.items()}
    assert spends == {
        "events": Spend("events", "train", 2.5),
        "hazard": Spend("hazard", "train", 2.5),
        "hazard, late": Spend("hazard", "train", 2.5),
        "histogram": Spend("histogram", "test", 2.5),
    }


# What the sums are


def crowd(n: int, seed: int, late: bool = False) -> People:
    rng = np.random.default_rng(seed)
    entry = rng.uniform(0, 0.9, n) * (rng.uniform(size=n) < 0.5) if late else np.zeros(n)
    days = rng.exponential(70.0, n) + 0.5
    return People(rng.uniform(size=n) < 0.4, days, days * entry, rng.normal(0, 0.8, n).clip(-5, 2.2))


@pytest.mark.parametrize("late", [False, True])
def test_without_noise_and_below_the_bound_the_baseline_is_breslows(late):
    some = crowd(300, 5, late)
    first = some.first if late else None
    events = releases.event_sums(some.event, some.bins, BINS)
    sums = releases.clipped_hazard_sums(some.log_hazard, some.bins, BINS, BOUND, first)
    exact = breslow(events.astype(np.int64), hazard_sums(some.log_hazard, some.bins, BINS, 50.0, first))
    found = releases.baseline_from_noised(EDGES, events, sums, BOUND, 0.0, late)
    np.testing.assert_allclose(found.cumulative_hazard, exact, rtol=1e-12)


def test_a_hazard_counts_as_the_bound_at_most_and_one_that_is_no_number_as_none():
    scores = np.array([np.log(BOUND) + 5, np.inf, np.nan, -np.inf, 0.0])
    sums = releases.clipped_hazard_sums(scores, np.arange(5), 5, BOUND)
    np.testing.assert_allclose(sums, [1.0, 1.0, 0.0, 0.0, 1 / BOUND])


def test_a_histogram_counts_everybody_once():
    some = crowd(200, 6)
    cells = releases.histogram(some.days, some.event, some.log_hazard, GRID)
    assert cells.shape == GRID.shape
    assert cells.sum() == 200
    assert cells[..., 1].sum() == some.event.sum()


# What a coordinator makes of them

noised_numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=30).map(np.array)


@settings(max_examples=200, deadline=None)
@given(noised_numbers)
def test_counts_become_possible_and_keep_their_total(noised):
    counts = releases.possible_counts(noised)
    assert (counts >= 0).all()
    assert counts.sum() == pytest.approx(max(noised.sum(), 0), abs=1e-9 * np.abs(noised).sum())
    assert (np.diff(counts[np.argsort(noised)]) >= -1e-12).all()
    np.testing.assert_allclose(releases.possible_counts(np.abs(noised)), np.abs(noised), atol=1e-9)


def test_the_total_of_many_empty_cells_is_not_that_of_their_floored_noise():
    noised = np.random.default_rng(8).normal(0, 5.0, 128)
    noised[3] += 200
    assert np.maximum(noised, 0).sum() > 350
    assert releases.possible_counts(noised).sum() == pytest.approx(noised.sum())


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 20).flatmap(
        lambda n: st.tuples(*[st.lists(st.floats(-50, 50), min_size=n, max_size=n)] * 2)
    )
)
@pytest.mark.parametrize("late", [False, True])
def test_whatever_noise_there_is_the_baseline_is_one(late, columns):
    events, sums = map(np.array, columns)
    edges = 30.0 * np.arange(len(events))
    counts = releases.possible_counts(events)
    risk = releases.possible_risk_sets(sums, counts, BOUND, 0.5, late)
    assert (risk >= 0.5 * BOUND).all()
    assert late or (np.diff(risk) <= 1e-9 * np.abs(risk).max()).all()
    baseline = releases.baseline_from_noised(edges, events, sums, BOUND, 0.5, late)
    assert isinstance(baseline, Baseline)  # which refuses what falls or is not finite
    assert np.diff(baseline.cumulative_hazard, prepend=0.0).max() <= 1 + 1e-9


def test_with_the_noise_of_an_ordinary_site_the_baseline_is_near_the_exact_one():
    """10,000 patients, noise of 5 in 5 bins: the error of H0 is below a tenth."""
    some, rng = crowd(10_000, 9), np.random.default_rng(10)
    exact = breslow(
        releases.event_sums(some.event, some.bins, BINS).astype(np.int64),
        hazard_sums(some.log_hazard, some.bins, BINS, 50.0),
    )
    found = releases.baseline_from_noised(
        EDGES, NOISED["events"](some, 5.0, rng).values, NOISED["hazard"](some, 5.0, rng).values, BOUND, 5.0
    )
    np.testing.assert_allclose(found.cumulative_hazard, exact, rtol=0.1)
