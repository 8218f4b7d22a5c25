"""SCAFFOLD's control variates: the paper's algorithm 1, option II, from what the server knows without being told."""

from typing import Any

import numpy as np
import pytest

from fedecg.errors import FederationError
from fedecg.federation.aggregation import BLOCK, average
from fedecg.federation.scaffold import Controls, joined, own_change, parted
from fedecg.model import Piece

RATE, STEPS = 0.05, 7


class Quadratic:
    """A site whose loss is 1/2 (w - centre)' curvature (w - centre): its gradient is known."""

    def __init__(self, seed: int, size: int) -> None:
        rng = np.random.default_rng(seed)
        self.centre, self.curvature = rng.normal(size=size), rng.uniform(0.5, 4, size)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.curvature * (weights - self.centre)


def optimum(sites: dict[str, Quadratic], shares: dict[str, float]) -> np.ndarray:
    """Of the weighted mean of their losses."""
    curvature = sum(shares[name] * site.curvature for name, site in sites.items())
    return sum(shares[name] * site.curvature * site.centre for name, site in sites.items()) / curvature


def paper_rounds(
    sites: dict[str, Quadratic], shares: dict[str, float], rounds: int, absent: dict[int, set[str]]
) -> np.ndarray:
    """Algorithm 1 as printed, in float64, changes of controls sent along; means weighted by `shares`."""
    size = len(next(iter(sites.values())).centre)
    weights, everybody = np.zeros(size), np.zeros(size)
    own = {name: np.zeros(size) for name in sites}
    for number in range(1, rounds + 1):
        there = [name for name in sites if name not in absent.get(number, set())]
        moves, changes = {}, {}
        for name in there:
            local = weights.copy()
            for _ in range(STEPS):
                local = local - RATE * (sites[name].gradient(local) - own[name] + everybody)
            after = own[name] - everybody + (weights - local) / (STEPS * RATE)
            moves[name], changes[name] = local - weights, after - own[name]
            own[name] = after
        total = sum(shares[name] for name in there)
        weights = weights + sum(shares[name] / total * moves[name] for name in there)
        everybody = everybody + sum(shares[name] * changes[name] for name in there) / sum(shares.values())
    return weights


def our_rounds(
    sites: dict[str, Quadratic], shares: dict[str, float], rounds: int, absent: dict[int, set[str]]
) -> np.ndarray:
    """The same with the two sides' own functions: only weights come back."""
    size = len(next(iter(sites.values())).centre)
    pieces = (Piece(0, size, RATE),)
    weights, controls = np.zeros(size, np.float32), Controls.none(size)
    own = {name: np.zeros(size, np.float32) for name in sites}
    for number in range(1, rounds + 1):
        there = [name for name in sites if name not in absent.get(number, set())]
        sent, everybody = parted(joined(weights, controls.mean(shares)))
        updates = {}
        for name in there:
            local = sent.copy()
            for _ in range(STEPS):
                step = sites[name].gradient(local) - own[name] + everybody
                local = (local - RATE * step).astype(np.float32)
            for part, change in own_change(pieces, sent, everybody, local, STEPS):
                own[name][part] += change
            updates[name] = local
        steps = dict.fromkeys(there, STEPS)
        weights = average(updates, shares)
        controls.add(pieces, number, sent, everybody, updates, shares, steps)
    return weights


SHARES = {"a": 5.0, "b": 1.0, "c": 3.0}
SITES = {name: Quadratic(seed, 11) for seed, name in enumerate(SHARES)}


@pytest.mark.parametrize("absent", [{}, {2: {"b"}, 3: {"a", "c"}, 5: {"b"}}], ids=["all", "some away"])
def test_it_is_the_papers_algorithm_with_option_two(absent: dict[int, set[str]]) -> None:
    ours, paper = our_rounds(SITES, SHARES, 8, absent), paper_rounds(SITES, SHARES, 8, absent)
    np.testing.assert_allclose(ours, paper, rtol=0, atol=2e-5)
    assert np.abs(paper).max() > 0.1


def test_it_ends_at_the_pooled_optimum_where_fedavg_does_not() -> None:
    def fedavg(rounds: int) -> np.ndarray:
        weights = np.zeros(11)
        for _ in range(rounds):
            after = {}
            for name, site in SITES.items():
                after[name] = weights
                for _ in range(STEPS):
                    after[name] = after[name] - RATE * site.gradient(after[name])
            weights = sum(SHARES[name] * vector for name, vector in after.items()) / sum(SHARES.values())
        return weights

    pooled = optimum(SITES, SHARES)
    assert np.abs(our_rounds(SITES, SHARES, 300, {}) - pooled).max() < 1e-4
    assert np.abs(fedavg(300) - pooled).max() > 0.01


def test_the_mean_control_counts_a_site_that_has_not_answered_yet_with_nought() -> None:
    controls = Controls(np.array([8.0, 4.0]), {"a": 2.0}, {"a": 1})
    assert controls.mean({"a": 2.0, "b": 6.0}).tolist() == [1.0, 0.5]
    assert controls.mean({"a": 99.0, "b": 6.0}).tolist() == [
        1.0,
        0.5,
    ]  # its weight is that of its first reply
    assert Controls.none(2).mean({}).tolist() == [0.0, 0.0]


def test_a_control_stays_where_no_gradient_moves_a_number_or_no_step_was_made() -> None:
    pieces = (Piece(0, 2, 0.0), Piece(2, 4, 0.5), Piece(4, 5, 0.0, parameter=False))
    sent, trained = np.ones(5, np.float32), np.zeros(5, np.float32)
    control = np.full(5, 0.25, np.float32)
    changes = list(own_change(pieces, sent, control, trained, 4))
    assert [(part, change.tolist()) for part, change in changes] == [(slice(2, 4), [0.25, 0.25])]
    assert list(own_change(pieces, sent, control, trained, 0)) == []


def test_both_sides_get_the_same_bits_block_by_block() -> None:
    size, rng = BLOCK + 5, np.random.default_rng(3)
    sent, trained, control = (rng.normal(size=size).astype(np.float32) for _ in range(3))

    class OnDisk:
        def __len__(self) -> int:
            return size

        def __getitem__(self, part: slice) -> Any:
            assert part.stop - part.start <= BLOCK
            return trained[part].copy()

    pieces = (Piece(0, size, 0.01),)
    ours = list(own_change(pieces, sent, control, trained, 3))
    theirs = list(own_change(pieces, sent, control, OnDisk(), 3))
    assert [change.tobytes() for _, change in ours] == [change.tobytes() for _, change in theirs]


def test_a_vector_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(FederationError, match=r"FECG-504 weights of a scaffold task.*\(3,\).*even number"):
        parted(np.zeros(3, np.float32))
