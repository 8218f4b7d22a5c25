"""Differential privacy of sites, its arithmetic: what one site can add, how much noise there is, where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedecg.config import StudySettings, parse_settings
from fedecg.errors import FederationError, SettingsError
from fedecg.federation.aggregation import aggregation_weight, average, update_norm
from fedecg.federation.few_sites import refuse_few_sites
from fedecg.federation.participation import number_taking_part
from fedecg.federation.site_level import clipped, masked_sensitivity, noised_mean, noised_mean_of_sum
from fedecg.model.learned import Piece
from fedecg.privacy.accountant import Spend, epsilon_of
from fedecg.privacy.fixed_point import update_of_words, words_of_update

Vector = NDArray[np.float32]
SIZE = 40_000  # more than two blocks
HUGE = 1e6
PINNED = (4.7285, 48.8017, 3.6171)


def study(**sections: object) -> StudySettings:
    privacy = {"mode": "client", **sections.pop("privacy", {})}  # type: ignore[dict-item]
    survival = {"baseline": "site", **sections.pop("survival", {})}  # type: ignore[dict-item]
    return parse_settings(StudySettings, {"privacy": privacy, "survival": survival, **sections})


def vectors(sites: int, size: int = SIZE, seed: int = 1) -> tuple[Vector, dict[str, Vector]]:
    draw = np.random.default_rng(seed)
    sent = draw.normal(size=size).astype(np.float32)
    moves = {f"site-{number}": draw.normal(size=size) * 0.01 for number in range(sites)}
    return sent, {name: (sent + move).astype(np.float32) for name, move in moves.items()}


def test_an_exploding_update_is_as_long_as_the_clip_and_points_the_same_way() -> None:
    sent, updates = vectors(1)
    exploding = (sent + (updates["site-0"] - sent) * np.float32(1e9)).astype(np.float32)
    leaving = clipped(exploding, sent, 0.5)
    length = update_norm(leaving, sent)
    assert 0.5 * (1 - 1e-6) <= length <= 0.5
    before, after = exploding.astype(np.float64) - sent, leaving.astype(np.float64) - sent
    assert before @ after / (np.linalg.norm(before) * length) > 1 - 1e-6


def test_a_short_update_leaves_as_it_is() -> None:
    sent, updates = vectors(1)
    assert clipped(updates["site-0"], sent, HUGE) is updates["site-0"]


def test_an_update_that_is_not_finite_is_left_to_the_coordinator_which_refuses_it() -> None:
    sent, updates = vectors(1)
    updates["site-0"][3] = np.nan
    assert np.isnan(clipped(updates["site-0"], sent, 0.5)[3])


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-9, 1e3), st.floats(-6, 30), st.floats(-6, 6), st.integers(1, 300), st.integers(0, 2**31 - 1)
)
def test_no_clipped_update_is_longer_than_the_clip(
    clip: float, spread: float, level: float, size: int, seed: int
) -> None:
    """Whatever the sizes of weights and moves: the clip also holds after rounding to float32."""
    draw = np.random.default_rng(seed)
    sent = (draw.normal(size=size) * 10**level).astype(np.float32)
    trained = (sent + draw.normal(size=size) * 10**spread).astype(np.float32)
    assert update_norm(clipped(trained, sent, clip), sent) <= clip


def test_without_noise_and_with_a_huge_clip_it_is_the_plain_mean_of_the_sites() -> None:
    sent, updates = vectors(7)
    plain = average(updates, dict.fromkeys(updates, 1.0))
    found = noised_mean(sent, updates, HUGE, 0.0, 7, np.random.default_rng(0))
    assert np.abs(found - plain).max() < 1e-6
    assert found.dtype == np.float32


def test_every_site_counts_the_same_whatever_its_patients() -> None:
    assert aggregation_weight(study(), "survival", 5000, 400) == 1.0
    assert aggregation_weight(study(), "align", 3, 0) == 1.0


@pytest.mark.parametrize("times", [1.0, 1e3, 1e12])
def test_one_site_more_moves_the_sum_by_at_most_the_clip_also_if_it_did_not_clip(times: float) -> None:
    sent, updates = vectors(6)
    clip, expected = 0.3, 50
    more = updates | {"zealot": (sent + (updates["site-0"] - sent) * np.float32(times)).astype(np.float32)}
    quiet, loud = (
        noised_mean(sent, some, clip, 0.0, expected, np.random.default_rng(0)).astype(np.float64)
        for some in (updates, more)
    )
    moved = np.linalg.norm(loud - quiet) * expected
    assert clip * 0.999 < moved < clip * 1.001


def test_the_sum_is_divided_by_who_should_take_part_and_not_by_who_answered() -> None:
    sent, updates = vectors(4)
    few, many = (
        noised_mean(sent, updates, HUGE, 0.0, expected, np.random.default_rng(0)).astype(np.float64) - sent
        for expected in (4, 8)
    )
    assert np.abs(few - 2 * many).max() < 1e-6


def chi_square_bounds(size: int) -> tuple[float, float]:
    """Where the mean square of so many standard normal numbers lies, but for one time in a hundred million."""
    return 1 - 5.8 * math.sqrt(2 / size), 1 + 5.8 * math.sqrt(2 / size)


@pytest.mark.parametrize(("scale", "fits"), [(1.0, True), (0.9, False), (1.1, False), (0.0, False)])
def test_the_noise_of_the_mean_has_the_right_standard_deviation(scale: float, fits: bool) -> None:
    """noise x clip / expected; a tenth more or less is noticed."""
    sent, updates = vectors(5)
    clip, noise, expected = 0.4, 2.5, 50
    quiet, loud = (
        noised_mean(sent, updates, clip, some, expected, np.random.default_rng(8)).astype(np.float64)
        for some in (0.0, noise * scale)
    )
    low, high = chi_square_bounds(SIZE)
    assert (low < np.mean(np.square((loud - quiet) * expected / (noise * clip))) < high) == fits


def test_noise_of_two_blocks_and_of_two_generators_is_not_the_same() -> None:
    still = np.zeros(SIZE, np.float32)
    first, again = (
        noised_mean(still, {}, 1.0, 1.0, 1, np.random.default_rng(seed)).astype(np.float64) for seed in (1, 2)
    )
    assert abs(np.corrcoef(first[:16_384], first[16_384:32_768])[0, 1]) < 0.05
    assert abs(np.corrcoef(first, again)[0, 1]) < 0.05


def test_what_no_site_moves_in_a_round_gets_no_noise_and_takes_none_of_what_came() -> None:
    sent, updates = vectors(3)
    pieces = (Piece(0, 30_000, 0.0), Piece(30_000, SIZE, 0.1))
    after = noised_mean(sent, updates, 1.0, 1.0, 3, np.random.default_rng(0), pieces)
    assert np.array_equal(after[:30_000], sent[:30_000])
    assert (after[30_000:] != sent[30_000:]).mean() > 0.99


def test_rounding_under_masks_is_within_what_the_noise_covers() -> None:
    sites, bound, clip = 50, 1.0, 1.0
    sent, updates = vectors(1)
    leaving = clipped(updates["site-0"], sent, clip)
    words = words_of_update(leaving - sent, 1 / sites, bound)
    opened = update_of_words(words, bound) * sites
    worst = masked_sensitivity(clip, SIZE, sites, bound)
    assert np.linalg.norm(opened) <= worst
    assert clip < worst < clip * 1.001
    whole = noised_mean_of_sum(sent, opened, worst, 0.0, 1, np.random.default_rng(0))
    assert np.abs(whole - leaving).max() < 1e-6


def test_epsilon_of_pinned_parameters() -> None:
    """Full participation, no amplification; Gaussian mechanisms by RDP, to four digits."""
    assert round(epsilon_of([Spend("aggregate", "train", 1.0, steps=1)], 1e-5), 4) == PINNED[0]
    assert round(epsilon_of([Spend("aggregate", "train", 1.0, steps=40)], 1e-5), 4) == PINNED[1]
    assert round(epsilon_of([Spend("aggregate", "train", 8.0, steps=40)], 1e-5), 4) == PINNED[2]


def test_forty_aggregates_cost_no_less_than_the_exact_gaussian_mechanism() -> None:
    """n releases of noise z are one of noise z / sqrt(n), whose epsilon is known exactly (Balle and Wang 2018)."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    def excess(epsilon: float, z: float) -> float:
        above = norm.cdf(0.5 / z - epsilon * z) - math.exp(epsilon) * norm.cdf(-0.5 / z - epsilon * z)
        return float(above) - 1e-5

    exact = brentq(excess, 1e-3, 60, args=(8.0 / math.sqrt(40),))
    counted = epsilon_of([Spend("aggregate", "train", 8.0, steps=40)], 1e-5)
    assert exact < counted < 1.25 * exact


def test_a_fraction_of_the_sites_is_the_number_that_is_asked() -> None:
    federation = study().federation
    some = federation.model_copy(update={"fraction": 0.1, "quorum": 3})
    assert [number_taking_part(sites, some) for sites in (1000, 55, 20, 2)] == [100, 6, 3, 2]
    assert number_taking_part(64, federation) == 64


def test_fewer_than_fifty_sites_are_refused_and_forced_only_if_asked_for() -> None:
    with pytest.raises(FederationError) as caught:
        refuse_few_sites(study(), 49)
    message = str(caught.value)
    assert message.startswith('FECG-563 sites of a study with privacy.mode = "client": found 49; ')
    assert "expected at least 50" in message
    assert "privacy.client-force = true" in message
    assert refuse_few_sites(study(), 50) == ""
    assert refuse_few_sites(StudySettings(), 2) == ""
    told = refuse_few_sites(study(privacy={"client-force": True}), 49)
    assert told == (
        'privacy.mode = "client" with 49 of at least 50 sites, forced: single patients, sums and counts are not '
        "protected by it"
    )


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"federation": {"algorithm": "median"}}, '"median" is no sum of clipped updates'),
        ({"federation": {"algorithm": "trimmed-mean"}}, '"trimmed-mean" is no sum of clipped updates'),
        ({"federation": {"algorithm": "krum"}}, 'expected federation.algorithm = "fedavg", "fedprox"'),
        ({"federation": {"algorithm": "fedbn"}, "evaluation": {"explain": False}}, '"fedbn" keeps things of each'),
        (
            {
                "federation": {"algorithm": "scaffold"},
                "align": {"optimizer": "sgd"},
                "survival": {"optimizer": "sgd"},
            },
            '"scaffold" keeps things of each site to which no noise is added',
        ),
        (
            {"survival": {"baseline": "shared"}},
            "a baseline hazard of all takes each site's exact sums into the updates of the others",
        ),
        ({"survival": {"loss": "grouped"}}, 'expected survival.baseline = "site", and loss = "cox-pooled"'),
        ({"federation": {"weight": "events"}}, 'expected federation.weight = "auto" with privacy.mode = "client"'),
        ({"model": {"preset": "paper"}}, "has running variances, which noise makes negative"),
        (
            {"model": {"encoder": "xresnet1d"}, "evaluation": {"explain": False}},
            "expected another model.encoder with privacy.mode",
        ),
        ({"privacy": {"sums": "noised"}}, 'expected sums = "noised" with mode = "sample", and not without'),
        (
            {"privacy": {"sums": "masked", "client-clip": 2.0}},
            'expected masked-bound >= client-clip with mode = "client" and sums = "masked"',
        ),
        ({"privacy": {"client-noise": 0.0}}, "privacy.client-noise"),
        ({"data": {"aligned": "kept"}}, 'expected data.aligned = "" with privacy.mode = "client"'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_with_it_is_refused_when_the_study_is_read(
    sections: dict[str, object], expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        study(**sections)
    assert caught.value.code == "FECG-103"
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "survival", [{"loss": "cox-site"}, {"loss": "cox-batch"}, {"baseline": "shared", "rounds": 0}]
)
def test_losses_in_which_no_site_knows_of_another_are_allowed(survival: dict[str, object]) -> None:
    chosen = study(survival=survival)
    assert chosen.privacy.mode == "client"
    assert not chosen.validation_chooses  # it would be a release without noise


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam", "fedyogi"])
def test_what_is_made_of_the_noised_mean_alone_is_allowed(algorithm: str) -> None:
    assert study(federation={"algorithm": algorithm, "fraction": 0.2}).privacy.mode == "client"
