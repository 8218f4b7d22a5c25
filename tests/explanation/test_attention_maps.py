"""Maps of attention: what they are, where they stand on the signal, how groups add up."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedecg.config import ModelSettings
from fedecg.errors import ModelError
from fedecg.explanation import (
    Attention,
    attend,
    attention_sums,
    group_attention,
    mixes_leads,
    receptive_samples,
)
from fedecg.model import Network, build_network
from fedecg.model.lead_maps import zscore_leads


def test_what_a_step_receives_is_the_column_mean_of_attention_with_its_residual(
    network: Network, ecgs: Any
) -> None:
    with torch.inference_mode():
        maps = network.encoder.attention(torch.from_numpy(ecgs.signal_mv))
    by_hand = (maps.time.double().mean(dim=2) + torch.eye(8)) / 2
    assert torch.allclose(by_hand.sum(dim=3), torch.ones(40, 12, 8, dtype=torch.float64))
    found = attend(network, ecgs.signal_mv)
    np.testing.assert_allclose(found.time, by_hand.mean(dim=2).numpy(), atol=1e-7)
    np.testing.assert_allclose(found.leads, maps.lead.double().mean(dim=1).numpy(), atol=1e-7)


def test_shares_sum_to_one_and_no_step_loses_its_own_half(network: Network, ecgs: Any) -> None:
    found = attend(network, ecgs.signal_mv)
    np.testing.assert_allclose(found.time.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(found.leads.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(found.bars.sum(axis=1), 1, atol=1e-6)
    assert found.time.min() >= 0.5 / found.steps - 1e-9


def test_a_strip_is_a_staircase_of_32_samples_from_0_to_1_on_one_scale_for_all_leads() -> None:
    time = np.full((1, 12, 2), 0.5)
    time[0, 3] = (0.8, 0.25)
    found = Attention(time, np.full((1, 12, 12), 1 / 12))
    strips = found.strips()
    assert strips.shape == (1, 12, 64)
    # 1.6 times even is not twice even: full colour is not reached.
    np.testing.assert_allclose(strips[0, 3], np.repeat([1.1 / 1.5, 0], 32), atol=1e-6)
    np.testing.assert_allclose(strips[0, 0], 0.5 / 1.5, atol=1e-6)
    assert found.peak[0] == pytest.approx(1.6)


def view_centre(network: Network, signal: torch.Tensor, step: int) -> float:
    """How many samples after the middle of the step's strip lies the middle of what the step is sensitive to."""
    asked = signal.clone().requires_grad_()
    weights = torch.randn(network.encoder.maps(signal, None)[:, :, step].shape)
    (gradient,) = torch.autograd.grad((network.encoder.maps(asked, None)[:, :, step] * weights).sum(), asked)
    sensitive = gradient.abs().double().mean(dim=(0, 1)).numpy()
    # Normalisations let in a little of everything, everywhere alike.
    sensitive = np.maximum(sensitive - np.median(sensitive), 0)
    samples = np.arange(sensitive.size)
    strip = np.flatnonzero(
        Attention(np.zeros((1, 12, 32)), np.zeros((1, 12, 12)), early(network)).step_of(samples) == step
    )
    near = np.abs(samples - strip.mean()) <= 191
    return float((sensitive[near] * (samples[near] - strip.mean())).sum() / sensitive[near].sum())


def early(network: Network) -> int:
    return attend(network, np.zeros((0, 12, network.samples), dtype=np.float32)).early_samples


@pytest.mark.parametrize(("preset", "late"), [("fedecg", 0), ("paper", 6)])
def test_a_strip_lies_where_its_step_looks(preset: Any, late: int) -> None:
    centres = []
    torch.manual_seed(0)
    for seed in range(6):
        network = build_network(ModelSettings(preset=preset, size="small"), 1024, 8, seed=seed)
        signal = torch.randn(4, 12, 1024)
        with torch.no_grad():
            for _ in range(20):  # running statistics of `paper`
                network.train().encoder.maps(signal, None)
        network.eval()
        assert early(network) == late
        centres += [view_centre(network, signal, step) for step in (8, 15, 22)]
    assert abs(np.mean(centres)) < 2.5  # without the 6 samples it would be 6 in `paper`


def test_the_strips_of_the_paper_preset_begin_earlier_and_fill_the_recording() -> None:
    time = np.full((1, 12, 4), 0.25)
    time[0, 5] = (0.125, 0.625, 0.125, 0.125)
    found = Attention(time, np.full((1, 12, 12), 1 / 12), early_samples=6)
    strip = found.strips()[0, 5]
    np.testing.assert_array_equal(np.flatnonzero(strip == 1), np.arange(26, 58))
    assert found.step_of(np.array([0, 25, 26, 127])).tolist() == [0, 0, 1, 3]


def test_the_highest_step_of_an_ecg_has_full_colour_where_it_is_more_than_twice_even() -> None:
    time = np.full((2, 12, 4), 0.25)
    time[1, 5] = (0.625, 0.125, 0.125, 0.125)
    strips = Attention(time, np.full((2, 12, 12), 1 / 12)).strips()
    np.testing.assert_allclose(strips[1, 5], np.repeat([1, 0, 0, 0], 32), atol=1e-6)
    np.testing.assert_allclose(strips[1, 0], 0.25, atol=1e-6)
    np.testing.assert_allclose(strips[0], 1 / 3, atol=1e-6)


def test_even_attention_is_an_even_strip_that_does_not_look_high() -> None:
    found = Attention(np.full((1, 12, 4), 0.25), np.full((1, 12, 12), 1 / 12))
    np.testing.assert_allclose(found.strips(), 1 / 3, atol=1e-6)
    assert found.peak[0] == pytest.approx(1)


def test_the_batch_and_dropout_make_no_difference(network: Network, ecgs: Any) -> None:
    many = np.concatenate([ecgs.signal_mv] * 2)  # 80 ECGs are two batches
    network.train()
    try:
        found = attend(network, many)
        assert network.training
    finally:
        network.eval()
    np.testing.assert_allclose(found.time[40:], attend(network, ecgs.signal_mv).time, atol=1e-6)
    np.testing.assert_allclose(found.one(41).time[0], found.time[1], atol=1e-6)


def test_the_paper_preset_is_explained_on_its_z_scores(paper_network: Network, ecgs: Any) -> None:
    with torch.inference_mode():
        given = zscore_leads(torch.from_numpy(ecgs.signal_mv))
        leads = paper_network.encoder.attention(given).lead.double().mean(dim=1)
    np.testing.assert_allclose(attend(paper_network, ecgs.signal_mv).leads, leads.numpy(), atol=1e-6)


def test_only_the_paper_preset_mixes_leads_before_time_attention(
    network: Network, paper_network: Network, ecgs: Any
) -> None:
    changed = ecgs.signal_mv.copy()
    changed[:, 8] *= -1
    changed[:, 8, ::3] += 0.2
    for one, mixed in ((network, False), (paper_network, True)):
        difference = np.abs(attend(one, changed).time - attend(one, ecgs.signal_mv).time).max(axis=(0, 2))
        assert difference[8] > 1e-6
        assert (np.delete(difference, 8).max() > 1e-6) == mixed == mixes_leads(one)


def reach(layers: list[tuple[nn.Conv2d, int]]) -> int:
    """Receptive field of convolutions, each after folding some samples into channels."""
    samples, stride = 1, 1
    for layer, folded in layers:
        samples += (layer.kernel_size[1] * folded - 1) * stride
        stride *= folded * layer.stride[1]
    return samples


def test_the_receptive_field_is_that_of_the_layers(network: Network, paper_network: Network) -> None:
    maps: Any = network.encoder.maps
    layers = [(maps.stem, 4), (maps.middle, 2), (maps.context, 1), (maps.last, 4)]
    assert reach(layers) == receptive_samples("fedecg") == 152
    paper: Any = paper_network.encoder.maps
    layers = [(paper.lead_conv, 1), (paper.dense_conv, 1)]
    layers += [(conv, 1) for stage in paper.stages for conv in (stage.conv_1, stage.conv_2)]
    assert reach(layers) == receptive_samples("paper") == 381


def test_groups_of_two_sites_add_up_to_those_of_all(network: Network, ecgs: Any) -> None:
    found = attend(network, ecgs.signal_mv)
    groups = {"spike": ecgs.carrier, "none": ~ecgs.carrier}
    whole = group_attention(found, groups)
    first, second = (Attention(found.time[part], found.leads[part]) for part in (slice(15), slice(15, 40)))
    for name, members in groups.items():
        both = attention_sums(first, members[:15]) + attention_sums(second, members[15:])
        assert both.ecgs == whole[name].ecgs == members.sum()
        np.testing.assert_allclose(both.time, whole[name].time)
        np.testing.assert_allclose(both.mean().time[0], found.time[members].mean(axis=0))
        np.testing.assert_allclose(both.mean().bars[0], found.bars[members].mean(axis=0))


def test_a_group_of_nobody_has_no_mean_and_a_site_of_nobody_adds_nothing(network: Network, ecgs: Any) -> None:
    nobody = attention_sums(attend(network, ecgs.signal_mv[:0]))
    assert nobody.ecgs == 0
    assert np.isnan(nobody.mean().time).all()
    everybody = attention_sums(attend(network, ecgs.signal_mv))
    assert (everybody + nobody).ecgs == 40
    np.testing.assert_array_equal((everybody + nobody).time, everybody.time)


def test_signals_that_do_not_fit_are_refused(network: Network, ecgs: Any) -> None:
    with pytest.raises(ModelError, match=r"FECG-353 .* found an array of shape \(40, 12, 200\)"):
        attend(network, ecgs.signal_mv[:, :, :200])
    broken = ecgs.signal_mv.copy()
    broken[3, 2, 1] = np.nan
    with pytest.raises(ModelError, match=r"FECG-353 .* values that are not finite; expected finite mV"):
        attend(network, broken)


def test_groups_of_models_of_different_lengths_do_not_add_up() -> None:
    one, other = (
        attention_sums(Attention(np.full((1, 12, steps), 1 / steps), np.full((1, 12, 12), 1 / 12)))
        for steps in (4, 8)
    )
    with pytest.raises(ModelError, match=r"FECG-354 maps of attention: found 4 and 8 steps"):
        one + other
