"""A masked reply's words: exact there and back, sums of replies are sums of their fields, and nothing else gets in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, global_concordance, site_counts
from fedecg.federation.documents import ALL, CountsDocument, PartCounts, RiskMoments, RoundSums
from fedecg.federation.masked import (
    Total,
    joined_words,
    parted_vector,
    parted_words,
    read_total,
    told,
    update_words,
)
from fedecg.federation.tasks import SurveyReply, TrainReply
from fedecg.privacy.masking import Words, added

GRID = RiskTimeGrid(np.array([50.0, 100.0, 150.0]), np.array([-1.0, 0.0, 1.0]))
PARTS = {"train": PartCounts(patients=20, events=5), "test": PartCounts(patients=3, events=0)}


def outcomes(seed: int, patients: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    draw = np.random.default_rng(seed)
    return draw.uniform(1, 200, patients), draw.random(patients) < 0.4, draw.normal(0, 1.5, patients)


def reply_of(seed: int, patients: int = 30) -> TrainReply:
    days, event, risk = outcomes(seed, patients)
    sums = RoundSums(
        train_exp_sums=np.random.default_rng(seed).normal(0, 30, 5).tolist(),
        validation=CountsDocument.of(site_counts(days, event, risk, GRID)),
        risk=RiskMoments.of(risk),
        train_events=[seed, 0, 2, 1, 0],
    )
    return TrainReply(
        site=f"site-{seed}", round=3, patients=patients, events=int(event.sum()), steps=4, loss=0.5 * seed,
        code_fingerprint="f", sums=sums,
    )  # fmt: skip


def total_of(*replies: TrainReply) -> Total:
    parted = [parted_words(told(reply, PARTS, GRID)) for reply in replies]
    words = added([Words(np.zeros(0, dtype=np.uint32), sums) for _, _, sums in parted])
    assert all((layout, same) == parted[0][:2] for layout, same, _ in parted)
    return read_total(TrainReply, *parted[0][:2], words, len(replies))


def test_one_reply_comes_back_as_it_was_but_for_its_name() -> None:
    reply, total = reply_of(2), total_of(reply_of(2))
    found = total.reply
    assert isinstance(found, TrainReply)
    assert found.sums is not None
    assert reply.sums is not None
    assert found.site == ALL
    assert (found.round, found.steps, found.events) == (3, 4, reply.events)
    assert found.sums.validation.cells == reply.sums.validation.cells
    np.testing.assert_allclose(found.sums.train_exp_sums, reply.sums.train_exp_sums, atol=2.0**-41)
    assert total.parts == PARTS  # parts that nobody has are left out


def test_the_sum_of_replies_is_the_sum_of_their_fields_and_the_mean_of_their_losses() -> None:
    replies = [reply_of(seed, patients) for seed, patients in ((1, 30), (2, 7), (4, 60))]
    found = total_of(*replies).reply
    assert isinstance(found, TrainReply)
    assert found.sums is not None
    assert found.patients == 97
    assert found.steps == 12
    assert found.loss == pytest.approx(3.5 / 3)
    assert found.sums.train_events == [7, 0, 6, 3, 0]
    assert found.sums.risk.patients == 97


def test_concordance_of_the_sum_is_that_of_the_sites_bounds_and_all() -> None:
    """Without the pairs that each site tells of its own cells, no sum would know which pairs are within sites."""
    own = [site_counts(*outcomes(seed, 40), GRID) for seed in (1, 2, 3)]
    found = total_of(*(reply_of(seed, 40) for seed in (1, 2, 3))).reply
    assert isinstance(found, TrainReply)
    assert found.sums is not None
    together, apart = global_concordance([found.sums.validation.counts(GRID)]), global_concordance(own)
    for name in ("stratified", "c_index", "lower", "upper", "comparable_low", "comparable_high", "patients"):
        assert getattr(together, name) == getattr(apart, name), name
    assert together.stratified_se == pytest.approx(apart.stratified_se)
    assert together.ci_low == pytest.approx(apart.ci_low)
    assert together.ci_high == pytest.approx(apart.ci_high)


def test_words_travel_as_one_vector() -> None:
    _, _, sums = parted_words(told(reply_of(1), PARTS, GRID))
    layout = parted_words(told(reply_of(1), PARTS, GRID))[0]
    sent = joined_words(Words(np.arange(7, dtype=np.uint32), sums))
    back = parted_vector(sent, layout)
    assert sent.dtype == np.uint32
    assert np.array_equal(back.sums, sums)
    assert np.array_equal(back.update, np.arange(7))
    for wrong in (None, sent[:10], sent.view(np.float32)):
        with pytest.raises(FederationError, match="FECG-567 masked replies: found no words, or fewer"):
            parted_vector(wrong, layout)


def test_sums_that_a_lie_has_spoilt_are_no_reply() -> None:
    layout, same, sums = parted_words(told(reply_of(1), PARTS, GRID))
    words = Words(np.zeros(0, dtype=np.uint32), sums - np.uint64(2**50))
    with pytest.raises(FederationError, match="FECG-567 .*numbers that are no reply to this task"):
        read_total(TrainReply, layout, same, words, 1)
    with pytest.raises(FederationError, match="FECG-567 .*numbers of another length than their layout"):
        read_total(TrainReply, layout, same, Words(words.update, sums[1:]), 1)


def test_a_field_that_cannot_be_added_up_never_leaves() -> None:
    reply = SurveyReply(site="s", train_events=[1], train_exp_sums=[1.0], risk=RiskMoments.of(np.zeros(2)))
    tree = told(reply, PARTS, None)
    tree["reply"]["words"] = "atrial"
    with pytest.raises(
        FederationError, match="FECG-445 reply/words of a masked reply: found something that is no number"
    ):
        parted_words(tree)


def test_an_update_far_longer_than_the_weights_is_not_masked() -> None:
    """Every change is within the bound, all of them together are absurd: the coordinator's rule, kept at the site."""
    received = np.full(40_000, 1e-4, dtype=np.float32)
    with pytest.raises(
        FederationError, match="FECG-445 update of a site, before it is masked: found one longer than 100"
    ):
        update_words(StudySettings(), received + np.float32(0.9), received, 0.5)
    assert update_words(StudySettings(), received + np.float32(0.1), received, 0.5).size == 40_000
