"""Tests of attention: each catches what it is meant to catch, and adds up over sites."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, ttest_1samp
from scipy.stats import t as student_t

from fedecg.errors import ModelError
from fedecg.evaluation import concordance, concordance_interval
from fedecg.explanation import (
    ORDERS,
    Faithfulness,
    FaithfulnessSums,
    Verdict,
    attend,
    caption,
    deletion,
    deletion_sums,
    faithfulness,
    faithfulness_sums,
    lead_occlusion,
    occlusion,
    occlusion_sums,
    randomisation,
    randomisation_sums,
    segment_occlusion,
    shuffled,
    stability,
    stability_sums,
    time_occlusion,
)
from fedecg.explanation.hiding import gradient_times_input, hidden_step_hazards, plain_hazards
from fedecg.explanation.ranks import spearman
from fedecg.model import Network

SITES = (slice(15), slice(15, 40))


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (2, 6, 12)).astype(float)  # with ties
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-12)
    assert spearman(one[0], np.ones(12)) == 0


# Weight randomisation


def test_a_model_whose_weights_are_shuffled_fails_the_randomisation_test(learned: Network, ecgs: Any) -> None:
    passed = []
    for number in range(10):
        # Another seed than the test's own, and the heads are shuffled, too.
        broken = shuffled(learned, seed=1000, number=number)
        with torch.no_grad():
            for parameter in broken.risk.parameters():
                parameter.copy_(parameter.flatten()[torch.randperm(parameter.numel())].view_as(parameter))
        results = randomisation(randomisation_sums(broken, ecgs.signal_mv, seed=number))
        passed.append(all(result.p_value <= 0.05 for result in results))
    assert sum(passed) <= 1  # each kind of map by chance once in 20, both still more rarely


def test_an_order_in_the_weights_is_told_apart_from_shuffled_copies(network: Network, ecgs: Any) -> None:
    ordered = shuffled(network, seed=0)
    temporal = ordered.encoder.temporal.query_key_value
    across = ordered.encoder.cross_lead.attention.query_key_value
    with (
        torch.no_grad()
    ):  # every step asks for the step, every lead for the lead, with the highest first feature
        for weight, bias in ((temporal.weight, temporal.bias), (across.weight[None], across.bias[None])):
            width = weight.shape[2]
            bias[:, 0] = 6.0
            weight[:, width] = 0.0
            weight[:, width, 0] = 4.0
    for result in randomisation(randomisation_sums(ordered, ecgs.signal_mv, seed=1)):
        assert result.distance > 1.5 * result.copies_distance
        assert result.p_value == pytest.approx(1 / 20)
        assert result.similarity < 0.5


def test_a_map_that_ignores_the_weights_is_as_similar_as_can_be(network: Network, ecgs: Any) -> None:
    # Without queries and keys, attention is even whatever the other weights are.
    blind = shuffled(network, seed=0)
    with torch.no_grad():
        for layer in (
            blind.encoder.temporal.query_key_value,
            blind.encoder.cross_lead.attention.query_key_value,
        ):
            layer.weight.zero_()
    time, leads = randomisation(randomisation_sums(blind, ecgs.signal_mv, seed=1, copies=3))
    assert time.distance == pytest.approx(0, abs=1e-7)
    assert leads.distance == pytest.approx(0, abs=1e-7)
    assert time.p_value > 0.05


def test_shuffling_keeps_every_value_and_the_model_itself(network: Network) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one, again, other = (shuffled(network, 5, number) for number in (0, 0, 1))
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor)
        assert torch.equal(one.state_dict()[name], again.state_dict()[name])
        np.testing.assert_array_equal(
            np.sort(one.state_dict()[name].numpy(), axis=None), np.sort(tensor.numpy(), axis=None)
        )
    weight = "encoder.temporal.query_key_value.weight"
    assert not torch.equal(one.state_dict()[weight], before[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert torch.equal(one.state_dict()["risk.layers.2.weight"], before["risk.layers.2.weight"])


# Hiding


def test_hidden_steps_are_replaced_by_the_median_of_their_lead(network: Network, ecgs: Any) -> None:
    hidden = np.zeros((1, 40, 12, 8), dtype=np.bool_)
    hidden[0, :, 4, 2] = True
    by_hand = ecgs.signal_mv.copy()
    lead = torch.from_numpy(ecgs.signal_mv[:, 4])
    by_hand[:, 4, 64:96] = lead.median(dim=1, keepdim=True).values.numpy()
    found = hidden_step_hazards(network, ecgs.signal_mv, hidden)
    np.testing.assert_allclose(found[0], plain_hazards(network, by_hand), atol=1e-5)


def test_nothing_hidden_changes_nothing_and_all_hidden_leaves_no_ecg(network: Network, ecgs: Any) -> None:
    hidden = np.zeros((2, 1, 12, 8), dtype=np.bool_)
    hidden[1] = True
    nothing, everything = hidden_step_hazards(network, ecgs.signal_mv, hidden)
    np.testing.assert_allclose(nothing, plain_hazards(network, ecgs.signal_mv), atol=1e-6)
    assert np.ptp(everything) < 1e-4


def test_gradient_times_input_is_that_of_a_finite_difference(network: Network, ecgs: Any) -> None:
    signal = ecgs.signal_mv[:1]
    centred = signal - signal.mean(axis=2, keepdims=True)
    step = np.zeros_like(signal)
    # A sample that stands alone in its step: all others of the step are at the lead's mean.
    signal = signal - 0
    signal[0, 3, 32:64] = centred[0, 3, 32:64] = 0
    signal = (signal - signal.mean(axis=2, keepdims=True)).astype(np.float32)
    signal[0, 3, 32:64] = signal[0, 3].mean()
    signal[0, 3, 40] = 0.5
    step[0, 3, 40] = 1e-2
    slope = (plain_hazards(network, signal + step) - plain_hazards(network, signal - step))[0] / 2e-2
    mean = signal[0, 3].mean()
    found = gradient_times_input(network, signal)[0, 3, 1]
    assert found == pytest.approx(abs(slope * (0.5 - mean)), rel=0.1, abs=2e-3)


def test_occlusion_finds_the_lead_and_the_time_of_the_planted_spike(learned: Network, ecgs: Any) -> None:
    carriers, step = ecgs.signal_mv[ecgs.carrier], ecgs.sample // 32
    assert np.mean(np.abs(lead_occlusion(learned, carriers)).argmax(axis=1) == 7) >= 0.9
    assert np.mean(np.abs(np.abs(time_occlusion(learned, carriers)).argmax(axis=1) - step) <= 1) >= 0.9
    segments = segment_occlusion(learned, carriers[:1])
    assert segments.shape == (12, 8)
    assert np.unravel_index(np.abs(segments).argmax(), (12, 8)) == (7, step)


def test_segments_are_hidden_ecg_by_ecg(network: Network, ecgs: Any) -> None:
    with pytest.raises(ModelError, match=r"FECG-353 .* found 40 ECGs; expected one ECG"):
        segment_occlusion(network, ecgs.signal_mv)


# Deletion and insertion


def test_curves_start_and_end_where_all_orders_agree(network: Network, ecgs: Any) -> None:
    result = deletion(deletion_sums(network, ecgs.signal_mv, np.random.default_rng(0)))
    assert result.shares[0] == 0
    assert result.shares[-1] == 1
    assert np.abs(result.deletion[:, 0]).max() < 1e-5
    assert np.abs(result.insertion[:, -1]).max() < 1e-5
    assert np.ptp(result.deletion[:, -1]) < 1e-5
    np.testing.assert_allclose(result.insertion[:, 0], result.deletion[:, -1], atol=1e-5)
    assert len(result.deletion) == len(ORDERS)


def test_an_order_that_knows_the_spike_beats_the_random_one(learned: Network, ecgs: Any) -> None:
    result = deletion(deletion_sums(learned, ecgs.signal_mv[ecgs.carrier], np.random.default_rng(0)))
    gradient, random = ORDERS.index("gradient x input"), ORDERS.index("random")
    # Gradients find the spike: deletion by them goes further sooner, insertion is done sooner.
    assert np.trapezoid(result.deletion[gradient] - result.deletion[random], result.shares) > 0
    assert np.trapezoid(result.insertion[gradient] - result.insertion[random], result.shares) < 0


def test_areas_are_the_mean_curves_and_intervals_those_of_a_t_test(network: Network, ecgs: Any) -> None:
    sums = [deletion_sums(network, ecgs.signal_mv[i : i + 1], np.random.default_rng(i)) for i in range(12)]
    total = sums[0]
    for one in sums[1:]:
        total = total + one
    result = deletion(total)
    expected = np.trapezoid(result.deletion[0] - result.deletion[1], result.shares)
    assert result.deletion_random.value == pytest.approx(expected)
    expected = np.trapezoid(result.insertion[2] - result.insertion[0], result.shares)
    assert result.insertion_gradient.value == pytest.approx(expected)
    interval = ttest_1samp([one.area[0, 0] for one in sums], 0).confidence_interval()
    assert result.deletion_random.low == pytest.approx(interval.low)
    assert result.deletion_random.high == pytest.approx(interval.high)
    assert np.isnan(deletion(sums[0]).deletion_random.low)


# Occlusion and stability


def test_the_loss_of_c_is_that_of_raw_scores(learned: Network, ecgs: Any) -> None:
    result = occlusion(occlusion_sums(learned, ecgs.signal_mv, ecgs.time, ecgs.event))
    plain = plain_hazards(learned, ecgs.signal_mv)
    hidden = plain + lead_occlusion(learned, ecgs.signal_mv)[:, 7]
    whole, without = (concordance(ecgs.time, ecgs.event, eta).c_index for eta in (plain, hidden))
    assert result.c_index == whole
    assert result.c_loss[7] == pytest.approx(whole - without)
    assert result.c_loss.argmax() == result.moved.argmax() == 7
    np.testing.assert_allclose(result.bars, attend(learned, ecgs.signal_mv).bars.mean(axis=0))


def leave_one_out(part: slice, learned: Network, ecgs: Any) -> np.ndarray:
    """(n, 12): N - N' - d D of a site less the same without each patient; d is the loss over all pairs of the site."""
    time, event, signal = ecgs.time[part], ecgs.event[part], ecgs.signal_mv[part]
    plain = plain_hazards(learned, signal)
    hidden = plain[:, None] + lead_occlusion(learned, signal)

    def credits(rows: np.ndarray) -> tuple[np.ndarray, int]:
        whole = concordance(time[rows], event[rows], plain[rows])
        without = [concordance(time[rows], event[rows], hidden[rows, lead]) for lead in range(12)]
        gain = [2 * (whole.concordant - one.concordant) + whole.tied_risk - one.tied_risk for one in without]
        return np.array(gain) / 2, whole.comparable

    everybody = np.arange(len(time))
    gain, pairs = credits(everybody)
    rows = [credits(np.delete(everybody, out)) for out in everybody]
    return np.array([gain - other - gain / pairs * (pairs - left) for other, left in rows])


def test_the_error_of_the_loss_of_c_is_that_of_leaving_each_patient_out(learned: Network, ecgs: Any) -> None:
    result = occlusion(occlusion_sums(learned, ecgs.signal_mv, ecgs.time, ecgs.event))
    moved = leave_one_out(slice(None), learned, ecgs)
    np.testing.assert_allclose(
        result.c_loss_se, np.sqrt((moved**2).sum(axis=0)) / result.comparable, atol=1e-9
    )
    events = int(ecgs.event.sum())
    assert (result.events, result.few_events) == (events, events < 30)
    half = student_t.ppf(0.975, events - 1) * result.c_loss_se
    np.testing.assert_allclose(result.c_loss_high - result.c_loss, half)
    np.testing.assert_allclose(result.c_loss - result.c_loss_low, half)


def test_the_loss_of_the_spikes_lead_is_told_from_none_and_that_of_others_is_not(
    learned: Network, planted_ecgs: Any
) -> None:
    many = planted_ecgs(160, 256, np.random.default_rng(2))
    result = occlusion(occlusion_sums(learned, many.signal_mv, many.time, many.event))
    assert result.c_loss_low[7] > 0.05
    assert not result.few_events
    assert np.sum(result.c_loss_low > 0) <= 2
    alone = concordance_interval(many.time, many.event, plain_hazards(learned, many.signal_mv))
    others = np.delete(result.c_loss_se, 7)
    assert (
        others.max() < alone.se
    )  # paired: two C of other patients would differ by more than one's own error


def test_too_few_events_are_marked_and_none_give_no_interval(network: Network, ecgs: Any) -> None:
    nobody = occlusion(occlusion_sums(network, ecgs.signal_mv[:6], ecgs.time[:6], np.zeros(6)))
    assert (nobody.events, nobody.comparable, nobody.few_events) == (0, 0, True)
    assert np.isnan(nobody.c_loss_low).all()


def test_a_network_agrees_with_itself_and_not_with_another(
    network: Network, learned: Network, ecgs: Any
) -> None:
    same = stability(stability_sums([network, network], ecgs.signal_mv))
    assert same.time == pytest.approx(1)
    assert same.leads == pytest.approx(1)
    other = stability(stability_sums([network, learned, shuffled(network, 1)], ecgs.signal_mv))
    assert other.models == 3
    assert other.time < 0.5


def test_seeds_that_cannot_be_compared_are_refused(network: Network, ecgs: Any) -> None:
    with pytest.raises(ModelError, match=r"FECG-356 models to be compared: found 1; expected at least two"):
        stability_sums([network], ecgs.signal_mv)
    longer = Network(network.settings, 512, 8)
    with pytest.raises(ModelError, match=r"FECG-354 .* found signals of 2 different lengths"):
        stability_sums([network, longer], ecgs.signal_mv)


# All of them


def all_sums(network: Network, ecgs: Any, part: slice, *seeds: Network) -> FaithfulnessSums:
    return faithfulness_sums(
        network, ecgs.signal_mv[part], ecgs.time[part], ecgs.event[part], seed=4, seeds=seeds
    )


@pytest.fixture(scope="module")
def result(learned: Network, network: Network, ecgs: Any) -> Faithfulness:
    return faithfulness(all_sums(learned, ecgs, slice(None), network))


def test_sums_of_two_sites_are_those_of_all(
    learned: Network, network: Network, ecgs: Any, result: Any
) -> None:
    both = [all_sums(learned, ecgs, part, network) for part in SITES]
    federated = faithfulness(both[0] + both[1])
    for name in ("distance", "copies_distance", "p_value", "similarity"):
        assert getattr(federated.time, name) == pytest.approx(getattr(result.time, name), abs=1e-6)
        assert getattr(federated.leads, name) == pytest.approx(getattr(result.leads, name), abs=1e-6)
    np.testing.assert_allclose(federated.occlusion.moved, result.occlusion.moved, atol=1e-5)
    np.testing.assert_allclose(federated.occlusion.shift, result.occlusion.shift, atol=1e-5)
    assert federated.occlusion.agreement == pytest.approx(result.occlusion.agreement, abs=1e-6)
    for curve in (0, 2):  # the random order is each site's own
        np.testing.assert_allclose(
            federated.deletion.deletion[curve], result.deletion.deletion[curve], atol=1e-4
        )
    for name in ("gain_squares", "gain_mixed", "pair_squares", "events"):  # pairs lie within a site
        parts = [getattr(one.occlusion, name) for one in both]
        np.testing.assert_allclose(getattr((both[0] + both[1]).occlusion, name), parts[0] + parts[1])
    assert federated.stability is not None
    assert federated.stability.time == pytest.approx(result.stability.time, abs=1e-6)
    # Pairs lie within a site, so C is the stratified one: its counts are the two sites' counts.
    plain = [
        concordance(ecgs.time[p], ecgs.event[p], plain_hazards(learned, ecgs.signal_mv[p])) for p in SITES
    ]
    assert federated.occlusion.c_index == (plain[0] + plain[1]).c_index


def test_a_site_of_nobody_adds_nothing(learned: Network, network: Network, ecgs: Any, result: Any) -> None:
    nobody = all_sums(learned, ecgs, slice(0), network)
    alone = faithfulness(nobody)
    assert all(verdict.passed is None for verdict in alone.verdicts)
    assert np.isnan(alone.time.p_value)
    total = faithfulness(all_sums(learned, ecgs, slice(None), network) + nobody)
    assert [one.sentence for one in total.verdicts] == [one.sentence for one in result.verdicts]


def test_every_test_has_a_verdict_with_its_numbers(result: Faithfulness) -> None:
    tests = [(verdict.test, verdict.about) for verdict in result.verdicts]
    assert tests == [
        ("weight randomisation", "time attention"),
        ("weight randomisation", "lead attention"),
        ("deletion", "time attention"),
        ("insertion", "time attention"),
        ("lead occlusion", "lead attention"),
        ("stability over seeds", "time attention"),
        ("stability over seeds", "lead attention"),
    ]
    by_name = {(verdict.test, verdict.about): verdict for verdict in result.verdicts}
    assert by_name["weight randomisation", "lead attention"].passed is (result.leads.p_value <= 0.05)
    assert by_name["weight randomisation", "time attention"].passed is (result.time.p_value <= 0.05)
    assert by_name["stability over seeds", "time attention"].passed is False
    sentence = by_name["stability over seeds", "time attention"].sentence
    assert sentence.endswith("between 2 models over seeds of the survival stage; the alignment is shared")
    random = result.deletion.deletion_random
    assert by_name["deletion", "time attention"].passed is bool(random.low > 0)
    assert f"{random.value:+.3f}" in by_name["deletion", "time attention"].sentence


def test_a_caption_says_which_tests_failed(result: Faithfulness) -> None:
    text = caption(result, "time attention")
    assert text.startswith("Time attention is not an explanation here. It fails: ")
    assert "stability over seeds (rank correlation " in text
    assert "sees" not in text
    assert caption(result, "time attention", mixes_leads=True).endswith("says when, not in which lead.")
    assert "not in which lead" not in caption(result, "lead attention", mixes_leads=True)


@pytest.mark.parametrize(
    ("passed", "words"), [(True, "passed its tests: deletion (x)"), (None, "too few ECGs to say")]
)
def test_a_caption_claims_no_more_than_was_measured(
    result: Faithfulness, passed: bool | None, words: str
) -> None:
    verdict = Verdict("deletion", "time attention", passed, "x")
    assert words in caption(replace(result, verdicts=(verdict,)), "time attention")


@pytest.mark.parametrize("passed", [True, False, None])
def test_a_caption_names_the_test_that_was_not_made_and_does_not_say_passed(
    result: Faithfulness, passed: bool | None
) -> None:
    made = Verdict("deletion", "time attention", passed, "x")
    not_made = Verdict("stability over seeds", "time attention", None, "one seed", tested=False)
    text = caption(replace(result, verdicts=(made, not_made)), "time attention")
    assert "passed its tests" not in text
    assert text.endswith(" Not tested: stability over seeds (one seed).")
    words = {
        True: "failed none of the tests made: deletion (x).",
        False: "It fails: deletion (x).",
        None: "too few",
    }
    assert words[passed] in text


def test_one_model_alone_has_verdicts_that_say_why_stability_was_not_tested(
    learned: Network, ecgs: Any
) -> None:
    alone = faithfulness(all_sums(learned, ecgs, slice(12)), untested="training again failed (FECG-507)")
    assert [(one.test, one.tested, one.passed) for one in alone.verdicts[-2:]] == [
        ("stability over seeds", False, None)
    ] * 2
    assert "Not tested: stability over seeds (training again failed (FECG-507))." in caption(
        alone, "lead attention"
    )
    over = faithfulness(all_sums(learned, ecgs, slice(12), learned), seeds_of="both stages")
    assert over.verdicts[-1].sentence == "rank correlation 1.00 between 2 models over seeds of both stages"


def test_sums_that_do_not_belong_together_are_refused(network: Network, learned: Network, ecgs: Any) -> None:
    one, other = (randomisation_sums(network, ecgs.signal_mv[:2], seed, copies=1) for seed in (1, 2))
    with pytest.raises(ModelError, match=r"FECG-355 .* found sums of different copies of the network"):
        one + other
    sums = deletion_sums(network, ecgs.signal_mv[:2], np.random.default_rng(0))
    with pytest.raises(ModelError, match=r"FECG-355 .* found 7 and 6 points of different steps"):
        sums + replace(sums, counts=sums.counts[:-1])
    two = stability_sums([network, learned], ecgs.signal_mv[:2])
    with pytest.raises(ModelError, match=r"FECG-355 .* found sums of 2 and of 3 models"):
        two + replace(two, models=3)
    with_seeds, without = (all_sums(network, ecgs, slice(2), *seeds) for seeds in ([learned], []))
    with pytest.raises(ModelError, match=r"FECG-355 .* found some sites with it and some without"):
        with_seeds + without
