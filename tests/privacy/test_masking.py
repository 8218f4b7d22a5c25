"""Masks: sums are right whoever is lost, single replies say nothing, and no server gets more than one sum."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from fedecg.errors import FederationError, PolicyError
from fedecg.privacy.fixed_point import (
    counts_of_words,
    sums_of_words,
    update_error,
    update_of_words,
    words_of_counts,
    words_of_sums,
    words_of_update,
)
from fedecg.privacy.masking import (
    Circle,
    Masked,
    Opening,
    Words,
    _stream,
    added,
    fresh_key,
    mask,
    open_shares,
    public_bytes,
    threshold_of,
)
from fedecg.privacy.masking import (
    opened_sum as opened_of_words,
)
from fedecg.privacy.sharing import PRIME, SECRET_BYTES, part, rejoin

TAG = b"run 1, survival round 3, attempt 0"


@dataclass
class Sites:
    """A circle with its private keys and some words a site."""

    keys: dict[str, object]
    circle: Circle
    words: dict[str, Words]

    def masked(self, name: str, tag: bytes = TAG) -> Masked:
        return mask(self.keys[name], self.circle, name, tag, self.words[name])  # type: ignore[arg-type]

    def opened_by(
        self, name: str, masked: Mapping[str, Masked], answered: Collection[str], tag: bytes = TAG
    ) -> Opening:
        bundles = {sender: masked[sender].bundles[name] for sender in answered}
        return open_shares(self.keys[name], self.circle, name, tag, answered, bundles)  # type: ignore[arg-type]

    def true_sum(self, names: Collection[str]) -> Words:
        total = Words(np.zeros_like(self.words["s0"].update), np.zeros_like(self.words["s0"].sums))
        for name in names:
            total = total.plus(self.words[name])
        return total


def make_sites(number: int, size: int = 40, seed: int = 0) -> Sites:
    draw = np.random.default_rng(seed)
    names = [f"s{index}" for index in range(number)]
    keys = {name: fresh_key() for name in names}
    words = {
        name: Words(
            draw.integers(0, 2**32, size, dtype=np.uint32), draw.integers(0, 2**64, 7, dtype=np.uint64)
        )
        for name in names
    }
    return Sites(dict(keys), Circle({name: public_bytes(key) for name, key in keys.items()}), words)


def opened_sum(circle: Circle, masked: Mapping[str, Masked], openings: Mapping[str, Opening]) -> Words:
    words = added([one.words for one in masked.values()])
    return opened_of_words(circle, words, {name: one.commitments for name, one in masked.items()}, openings)


def assert_same(found: Words, expected: Words) -> None:
    assert np.array_equal(found.update, expected.update)
    assert np.array_equal(found.sums, expected.sums)


@settings(max_examples=30, deadline=None)
@given(number=st.integers(3, 8), data=st.data())
def test_the_sum_is_that_of_the_sites_that_answered_whoever_is_lost_in_either_message(
    number: int, data: st.DataObject
) -> None:
    sites, least = make_sites(number, size=11), threshold_of(number)
    answered = data.draw(st.sets(st.sampled_from(sites.circle.names), min_size=least))
    opening = data.draw(st.sets(st.sampled_from(sorted(answered)), min_size=least))
    masked = {name: sites.masked(name) for name in answered}
    openings = {name: sites.opened_by(name, masked, answered) for name in opening}
    assert_same(opened_sum(sites.circle, masked, openings), sites.true_sum(answered))


def test_more_than_two_thirds_and_at_least_three_sites_must_answer() -> None:
    assert [threshold_of(sites) for sites in (3, 4, 5, 6, 9, 10, 50)] == [3, 3, 4, 5, 7, 7, 34]
    assert all(3 * threshold_of(sites) > 2 * sites for sites in range(3, 200))


def test_too_few_answers_to_either_message_open_nothing() -> None:
    sites = make_sites(5)
    few = ["s0", "s1", "s2"]
    masked = {name: sites.masked(name) for name in sites.circle.names}
    with pytest.raises(PolicyError, match=r"FECG-444 .*found 3 of 5 sites; expected at least 4 sites"):
        sites.opened_by("s0", masked, few)
    with pytest.raises(PolicyError, match="FECG-444"):  # not itself among them
        sites.opened_by("s0", masked, ["s1", "s2", "s3", "s4"])
    with pytest.raises(FederationError, match="FECG-564"):
        opened_sum(sites.circle, {name: masked[name] for name in few}, {})
    openings = {name: sites.opened_by(name, masked, masked) for name in few}
    with pytest.raises(FederationError, match=r"FECG-564 shares of a mask: found 3; expected at least 4"):
        opened_sum(sites.circle, masked, openings)


def test_two_sites_make_no_circle() -> None:
    with pytest.raises(
        FederationError, match=r"FECG-564 sites of a masked sum: found 2; expected at least 3"
    ):
        make_sites(2)


def test_a_masked_reply_is_uniform_whatever_it_hides() -> None:
    """Chi-square over all bytes of one reply of zeros; the same test finds the numbers themselves at once."""
    sites = make_sites(5)
    zeros = Words(np.zeros(100_000, dtype=np.uint32), np.zeros(1000, dtype=np.uint64))
    own = random.Random(7)
    reply = mask(sites.keys["s2"], sites.circle, "s2", TAG, zeros, own.randbytes).words  # type: ignore[arg-type]
    for drawn in (reply.update.view(np.uint8), reply.sums.view(np.uint8)):
        assert chisquare(np.bincount(drawn, minlength=256)).pvalue > 1e-4
    pairs = np.bincount(reply.update.view(np.uint16) >> 6, minlength=1024)  # and no pattern within a word
    assert chisquare(pairs).pvalue > 1e-4
    change = np.random.default_rng(1).normal(0, 0.01, 100_000).astype(np.float32)
    plain = words_of_update(change, 0.2, 1.0).view(np.uint8)
    assert chisquare(np.bincount(plain, minlength=256)).pvalue < 1e-12


def test_two_replies_of_the_same_numbers_share_nothing() -> None:
    sites = make_sites(4, size=20_000)
    again = sites.masked("s1").words.update - sites.masked("s1").words.update  # own masks differ
    assert chisquare(np.bincount(again.view(np.uint8), minlength=256)).pvalue > 1e-4
    other = sites.masked("s1", b"next round").words.update - sites.masked("s1").words.update
    assert chisquare(np.bincount(other.view(np.uint8), minlength=256)).pvalue > 1e-4


def everything_a_server_learns(
    sites: Sites, masked: Mapping[str, Masked], told: Mapping[str, frozenset[str]]
) -> dict[str, Opening]:
    """It may tell each site another story of who answered; each site answers once."""
    return {name: sites.opened_by(name, masked, answered) for name, answered in told.items()}


def sums_that_open(
    sites: Sites, masked: Mapping[str, Masked], openings: Mapping[str, Opening]
) -> set[frozenset[str]]:
    """Every set of sites whose sum the server can open with what it was given."""
    found = set()
    for size in range(1, len(masked) + 1):
        for group in itertools.combinations(sorted(masked), size):
            try:
                opened = opened_of(sites.circle, {name: masked[name] for name in group}, openings)
            except FederationError:
                continue
            assert_same(opened, sites.true_sum(group))
            found.add(frozenset(group))
    return found


def opened_of(circle: Circle, masked: Mapping[str, Masked], openings: Mapping[str, Opening]) -> Words:
    """`opened_sum` of a server that does not keep to the number of sites, only to what the shares allow."""
    real = {peer: one for peer, one in openings.items()}
    padded = dict(masked)
    try:
        return opened_sum(circle, padded, real)
    except FederationError as error:
        if len(masked) >= circle.threshold:
            raise
        return _opened_below_threshold(circle, masked, real, error)


def _opened_below_threshold(
    circle: Circle, masked: Mapping[str, Masked], openings: Mapping[str, Opening], refused: FederationError
) -> Words:
    """Each secret that it would need, rejoined by hand: FECG-564 where the shares are not there."""
    for name in masked:
        rejoin(
            {circle.place(peer): one.own[name] for peer, one in openings.items() if name in one.own},
            circle.threshold,
        )
        for lost in set(circle.names) - set(masked):
            rejoin(
                {
                    circle.place(peer): one.pairs[name][lost]
                    for peer, one in openings.items()
                    if lost in one.pairs.get(name, {})
                },
                circle.threshold,
            )
    raise AssertionError("every secret of a sum below the threshold is open") from refused


def test_a_server_that_declares_sites_lost_that_are_not_learns_at_most_one_sum() -> None:
    """All its stories to five sites about one of them, s4: to some it answered, to the others it is lost."""
    sites = make_sites(5)
    everybody = frozenset(sites.circle.names)
    without = everybody - {"s4"}
    masked = {name: sites.masked(name) for name in everybody}
    for told_lost in range(5):
        for liars in itertools.combinations(sorted(without), told_lost):
            told = {name: without if name in liars else everybody for name in everybody}
            openings = everything_a_server_learns(sites, masked, told)
            opened = sums_that_open(sites, masked, openings)
            expected = {0: {everybody}, 1: {everybody}, 4: {without}}.get(told_lost, set())
            assert opened == expected, told_lost


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_whatever_a_server_says_it_opens_at_most_one_sum_and_never_of_few(data: st.DataObject) -> None:
    sites = make_sites(4, size=3)
    masked = {name: sites.masked(name) for name in sites.circle.names}
    others = st.sets(st.sampled_from(sites.circle.names), min_size=3)
    told = {name: frozenset(data.draw(others) | {name}) for name in sites.circle.names}
    opened = sums_that_open(sites, masked, everything_a_server_learns(sites, masked, told))
    assert len(opened) <= 1
    assert all(len(group) >= 3 for group in opened)


def test_a_late_reply_of_a_lost_site_stays_closed() -> None:
    """Its pairs are known by then, its own mask is not: what is left after taking the pairs off is uniform."""
    sites = make_sites(5, size=50_000)
    answered = frozenset(sites.circle.names) - {"s4"}
    masked = {name: sites.masked(name) for name in answered}
    openings = everything_a_server_learns(sites, masked, dict.fromkeys(answered, answered))
    before = opened_sum(sites.circle, masked, openings)
    assert_same(before, sites.true_sum(answered))
    late = masked | {"s4": sites.masked("s4")}
    with pytest.raises(FederationError, match="FECG-564"):
        opened_sum(sites.circle, late, openings)
    # The best that can be done: take off the masks of all its pairs, which are open by now.
    rest = late["s4"].words
    for name in sorted(answered):
        pair = {sites.circle.place(peer): one.pairs[name]["s4"] for peer, one in openings.items()}
        rest = rest.plus(_stream(rejoin(pair, sites.circle.threshold), rest), 1 if name < "s4" else -1)
    left = rest.update - sites.words["s4"].update  # its own mask alone: uniform, and nobody has its seed
    assert chisquare(np.bincount(left.view(np.uint8), minlength=256)).pvalue > 1e-4
    own = {sites.circle.place(peer): one.own["s4"] for peer, one in openings.items() if "s4" in one.own}
    assert own == {}


def test_shares_of_another_sum_open_nothing() -> None:
    sites = make_sites(3)
    masked = {name: sites.masked(name) for name in sites.circle.names}
    other = {name: sites.masked(name, b"another sum") for name in sites.circle.names}
    openings = {name: sites.opened_by(name, other, other, b"another sum") for name in other}
    with pytest.raises(FederationError, match="FECG-566 shares of a mask"):
        opened_sum(sites.circle, masked, openings)
    with pytest.raises(FederationError, match="FECG-569 sealed shares"):
        sites.opened_by("s0", other, other)


def test_replies_of_different_lengths_are_refused() -> None:
    sites = make_sites(3)
    masked = {name: sites.masked(name) for name in sites.circle.names}
    short = replace(masked["s1"], words=Words(masked["s1"].words.update[1:], masked["s1"].words.sums))
    with pytest.raises(FederationError, match="FECG-567 masked replies: found numbers of different lengths"):
        opened_sum(sites.circle, masked | {"s1": short}, {})


def test_a_key_that_is_none_is_refused() -> None:
    sites = make_sites(3)
    broken = Circle({**sites.circle.publics, "s1": bytes(32)})
    with pytest.raises(FederationError, match="FECG-569 public key of a site"):
        mask(sites.keys["s0"], broken, "s0", TAG, sites.words["s0"])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES), data=st.data())
def test_any_threshold_of_shares_gives_the_secret_back_as_flowers_do(
    secret: bytes, data: st.DataObject
) -> None:
    peers = data.draw(st.integers(1, 9))
    threshold = data.draw(st.integers(1, peers))
    places = data.draw(st.sets(st.integers(1, peers), min_size=threshold))
    shares = part(secret, threshold, peers)
    assert rejoin({place: shares[place - 1] for place in places}, threshold) == secret
    if threshold > 1:  # Flower's split refuses a polynomial without coefficients
        flowers = create_shares(secret, threshold, peers)
        assert combine_shares([flowers[place - 1] for place in sorted(places)[:threshold]]) == secret


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """Two of three shares: for any secret at all there is a third share that makes it."""
    shares = part(b"\x01" * SECRET_BYTES, 3, 3)
    for other in (b"\x02" * SECRET_BYTES, b"\x00" * SECRET_BYTES):
        # Lagrange at place 3, given the places 1 and 2 and the secret at 0.
        one, two, zero = (int.from_bytes(value, "big") for value in (shares[0], shares[1], other))
        third = (zero - 3 * one + 3 * two) % PRIME
        found = rejoin({1: shares[0], 2: shares[1], 3: third.to_bytes(32, "big")}, 3)
        assert found == other


def test_shares_are_uniform_over_many_polynomials() -> None:
    draw = random.Random(3)
    first = [part(b"\x07" * SECRET_BYTES, 3, 4, draw.randrange)[0][-1] for _ in range(4000)]
    assert chisquare(np.bincount(first, minlength=256)).pvalue > 1e-4


Update = NDArray[np.float32]


@settings(max_examples=60, deadline=None)
@given(sites=st.integers(3, 12), seed=st.integers(0, 10_000), bound=st.sampled_from([0.01, 1.0, 8.0]))
def test_a_masked_update_is_the_plain_one_within_the_stated_error(
    sites: int, seed: int, bound: float
) -> None:
    draw = np.random.default_rng(seed)
    changes = draw.uniform(-bound, bound, (sites, 50)).astype(np.float32)
    changes = np.clip(changes, np.float32(-bound) * np.float32(0.999), np.float32(bound) * np.float32(0.999))
    shares = draw.dirichlet(np.ones(sites))
    total = np.zeros(50, dtype=np.uint32)
    for change, share in zip(changes, shares, strict=True):
        total = total + words_of_update(change, float(share), bound)
    exact = (changes.astype(np.float64) * shares[:, None]).sum(axis=0)
    error = np.abs(update_of_words(total, bound) - exact)
    assert error.max() <= update_error(sites, bound) * (1 + 1e-6)
    flowers = dequantize(quantize([changes[0].astype(np.float64)], bound, 2**30), bound, 2**30)[0]
    ours = update_of_words(words_of_update(changes[0], 1.0, bound), bound)
    assert np.abs(ours - flowers).max() <= 4 * bound / 2**30


def test_a_full_share_at_the_bound_wraps_around_nowhere() -> None:
    edge = np.array([1.0, -1.0], dtype=np.float32)
    assert np.allclose(update_of_words(words_of_update(edge, 1.0, 1.0), 1.0), [1.0, -1.0], atol=1e-9)
    almost_two = words_of_update(edge, 1.0, 1.0) + words_of_update(edge, 0.999999, 1.0)
    assert np.allclose(update_of_words(almost_two, 1.0), [1.999999, -1.999999], atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(-(2**52), 2**52), min_size=4, max_size=4), min_size=1, max_size=10),
    st.lists(st.lists(st.floats(-1e15, 1e15), min_size=4, max_size=4), min_size=1, max_size=10),
)
def test_counts_are_exact_and_sums_within_the_stated_error(
    counts: list[list[int]], sums: list[list[float]]
) -> None:
    exact = np.array(counts, dtype=np.int64)
    words = sum((words_of_counts(row) for row in exact[1:]), start=words_of_counts(exact[0]))
    assert np.array_equal(counts_of_words(words), exact.sum(axis=0))
    columns = np.array(sums)
    fixed = sum((words_of_sums(row) for row in columns[1:]), start=words_of_sums(columns[0]))
    true = np.array([float(sum(map(Fraction, column))) for column in columns.T])
    allowed = len(sums) * 2.0**-41 + 4 * np.spacing(np.abs(columns).sum(axis=0))
    assert (np.abs(sums_of_words(fixed) - true) <= allowed).all()


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: words_of_update(np.array([0.1, np.nan], dtype=np.float32), 0.5, 1.0), "found 1 of 2 changes"),
    (lambda: words_of_update(np.array([0.1, -1.5], dtype=np.float32), 0.5, 1.0), "found 1 of 2 changes"),
    (lambda: words_of_update(np.array([0.1], dtype=np.float32), 1.5, 1.0), "share 1.5"),
    (lambda: words_of_sums(np.array([1.0, np.inf])), "found 1 of 2 numbers"),
    (lambda: words_of_sums(np.array([1e30])), "found 1 of 1 numbers"),
]


@pytest.mark.parametrize(("make", "found"), BAD)
def test_numbers_that_do_not_fit_are_refused_before_they_are_masked(
    make: Callable[[], object], found: str
) -> None:
    with pytest.raises(FederationError, match=f"FECG-445 .*{found}"):
        make()
