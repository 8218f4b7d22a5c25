"""How the aligned encoder is tuned: fixed at first, slower than the head, or with its alignment loss kept."""

import copy

import numpy as np
import pytest
import torch

from fedecg.config import StudySettings, parse_settings
from fedecg.errors import ModelError, SettingsError
from fedecg.model import build_network, learning_rate, stage_tensors, tensors_of_stage
from fedecg.model.learned import LEVELS
from fedecg.training import train_survival

LINEAR = {"loss": "cox-batch", "local-steps": 4, "batch-size": 16, "learning-rate": 0.01}
SMALL = {"preset": "fedecg", "size": "small"}


def trained(network, site, settings, round_index=1, bank_vectors=None):
    """State after a round; the network is left as it was."""
    after = copy.deepcopy(network)
    report = train_survival(after, site, settings, round_index, None, bank_vectors=bank_vectors)
    return after.state_dict(), report


def parts_that_moved(network, state):
    before = network.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], state[name])}


@pytest.fixture(params=["fedecg", "paper"])
def real_network(request):
    """Dropout, and in `paper` running statistics: what must not move either."""
    settings = {"preset": request.param} | ({"size": "small"} if request.param == "fedecg" else {})
    model = StudySettings.model_validate({"model": settings}).model
    return build_network(model, 256, 6, seed=0)


def test_a_fixed_encoder_keeps_every_bit_while_the_head_learns(real_network, make_site, study):
    settings = study(survival={**LINEAR, "local-steps": 2, "freeze-rounds": 2})
    site = make_site(range(40))
    for round_index, moved in ((1, {"risk"}), (2, {"risk"}), (3, {"encoder", "risk"})):
        state, report = trained(real_network.train(), site, settings, round_index)
        assert parts_that_moved(real_network, state) == moved
        assert report.steps == 2


def test_a_fixed_encoder_is_a_map_without_chance(make_site, linear_network, study):
    """Its dropout is off: the head's first step is the same at every rate of dropout."""
    settings = study(survival={**LINEAR, "local-steps": 1, "freeze-rounds": 1})
    heads = [
        trained(linear_network(dropout=rate), make_site(range(40)), settings)[0]["risk.weight"]
        for rate in (0.0, 0.9)
    ]
    assert torch.equal(*heads)
    unfrozen = study(survival={**LINEAR, "local-steps": 1})
    assert not torch.equal(
        *(
            trained(linear_network(dropout=rate), make_site(range(40)), unfrozen)[0]["risk.weight"]
            for rate in (0.0, 0.9)
        )
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_encoders_rate_is_a_factor_of_its_first_step_and_leaves_the_head_alone(
    make_site, linear_network, study, optimizer
):
    def step(factor):
        survival = {
            **LINEAR, "local-steps": 1, "optimizer": optimizer, "weight-decay": 0.0, "clip-norm": 1e9,
            "encoder-rate": factor,
        }  # fmt: skip
        network = linear_network()
        state, _ = trained(network, make_site(range(40)), study(survival=survival))
        return {name: state[name] - weight for name, weight in network.state_dict().items()}

    whole, tenth, none = step(1.0), step(0.1), step(0.0)
    torch.testing.assert_close(
        tenth["encoder.0.weight"], 0.1 * whole["encoder.0.weight"], rtol=1e-6, atol=1e-12
    )
    assert whole["encoder.0.weight"].abs().max() > 0
    assert not none["encoder.0.weight"].any()
    assert torch.equal(tenth["risk.weight"], whole["risk.weight"])
    assert torch.equal(none["risk.weight"], whole["risk.weight"])


@pytest.mark.parametrize("preset", ["fedecg", "paper"])
def test_a_layer_learns_the_slower_the_nearer_it_is_to_the_signal(preset):
    """Every weight of the encoder has a level of its own kind; the head keeps its rate."""
    model = StudySettings.model_validate({"model": {"preset": preset}}).model
    stage = StudySettings.model_validate(
        {"survival": {"learning-rate": 1e-3, "encoder-rate": 0.5, "layer-decay": 0.5}}
    ).survival
    rates = {
        name: learning_rate(name, stage) / 1e-3
        for name, _ in build_network(model, 256, 6, 0).named_parameters()
    }
    assert {rate for name, rate in rates.items() if not name.startswith("encoder.")} == {1.0}
    assert {rate for name, rate in rates.items() if name.startswith("encoder.pooling.")} == {0.25}
    assert {rate for name, rate in rates.items() if name.startswith("encoder.temporal.")} == {0.125}
    maps = [rate for name, rate in rates.items() if name.startswith("encoder.maps.")]
    assert (min(maps), max(maps)) == (0.5**6, 0.5**4)
    assert set(maps) == {0.5**4, 0.5**5, 0.5**6}
    assert all(name.startswith(sum(LEVELS, ())) for name in rates if name.startswith("encoder."))


def test_a_step_moves_each_level_by_its_share_of_the_step_without_decay(make_site, real_network, study):
    """Plain descent: the first step is the rate times the gradient."""

    def step(decay):
        survival = {**LINEAR, "optimizer": "sgd", "local-steps": 1, "clip-norm": 1e9, "layer-decay": decay}
        state, _ = trained(real_network.eval(), make_site(range(40)), study(survival=survival))
        return {name: state[name] - weight for name, weight in real_network.named_parameters()}

    whole, decayed = step(1.0), step(0.5)
    lowest = ("encoder.maps.stem.", "encoder.maps.lead_conv.")  # of `fedecg`, of `paper`
    shares = {("encoder.pooling.",): 0.5, ("encoder.temporal.",): 0.25, lowest: 0.5**5, ("risk.",): 1.0}
    for part, share in shares.items():
        names = [name for name in whole if name.startswith(part) and whole[name].abs().max() > 0]
        assert names
        for name in names:
            torch.testing.assert_close(decayed[name], share * whole[name], rtol=1e-3, atol=1e-7)


def test_a_rate_of_one_is_the_round_without_it(make_site, linear_network, study):
    site, network = make_site(range(40)), linear_network(dropout=0.2)
    plain, _ = trained(network, site, study(survival=LINEAR))
    one, _ = trained(network, site, study(survival={**LINEAR, "encoder-rate": 1.0, "freeze-rounds": 0}))
    assert all(torch.equal(plain[name], one[name]) for name in plain)


def test_kept_alignment_teaches_projection_and_temperature_too(
    make_site, linear_network, study, bank_vectors
):
    network, site = linear_network(), make_site(range(40))
    alone, _ = trained(network, site, study(survival=LINEAR), bank_vectors=bank_vectors)
    assert parts_that_moved(network, alone) == {"encoder", "risk"}
    kept, _ = trained(network, site, study(survival={**LINEAR, "alignment": 0.5}), bank_vectors=bank_vectors)
    assert parts_that_moved(network, kept) == {"encoder", "risk", "projection", "temperature_scale"}


def test_the_loss_of_a_round_mixes_both_by_the_weight(make_site, linear_network, study, bank_vectors):
    """The loss before the first step is linear in the weight of alignment, whose own loss is known by hand."""
    site = make_site(range(30))

    def loss(weight):
        settings = study(survival={**LINEAR, "local-steps": 1, "batch-size": 64, "alignment": weight})
        return trained(linear_network(), site, settings, bank_vectors=bank_vectors)[1].loss

    network = linear_network()
    with torch.no_grad():
        projected = network.project(network.embed(site.signals(np.arange(30))))
    directions = torch.nn.functional.normalize(projected, dim=1)
    logits = directions @ torch.from_numpy(bank_vectors).double().T / network.temperature.detach()
    stated = torch.from_numpy(site.targets).double()
    alignment = -(stated * torch.log_softmax(logits, dim=1)).sum(dim=1).mean().item()
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * alignment, rel=1e-6)


def test_a_site_without_events_still_learns_what_its_ecgs_state(
    make_site, linear_network, study, bank_vectors
):
    site = make_site(range(30), event=np.zeros(30, dtype=bool))
    network = linear_network()
    _, nothing = trained(network, site, study(survival=LINEAR))
    assert nothing.steps == 0
    state, something = trained(
        network, site, study(survival={**LINEAR, "alignment": 0.5}), bank_vectors=bank_vectors
    )
    assert something.steps == 4
    assert "projection" in parts_that_moved(network, state)


def test_alignment_cannot_be_kept_without_a_bank(make_site, linear_network, study):
    with pytest.raises(ModelError) as refusal:
        trained(linear_network(), make_site(range(30)), study(survival={**LINEAR, "alignment": 0.5}))
    assert refusal.value.code == "FECG-381"
    assert "survival.alignment > 0" in str(refusal.value)


def test_messages_carry_the_projection_only_where_it_is_trained():
    model = StudySettings.model_validate({"model": SMALL}).model
    network = build_network(model, 256, 6, seed=0)

    def names(**survival):
        settings = StudySettings.model_validate({"model": SMALL, "survival": survival})
        return tensors_of_stage(network, settings, "survival")

    assert names() == stage_tensors(network, "survival", False)
    assert {name.split(".")[0] for name in names(alignment=0.2)} == {
        "encoder", "risk", "projection", "temperature_scale"
    }  # fmt: skip
    assert {name.split(".")[0] for name in names(reconstruction=0.2)} == {"encoder", "risk", "decoder"}


@pytest.mark.parametrize("key", ["freeze-rounds", "encoder-rate", "layer-decay", "alignment"])
def test_settings_out_of_range_are_named(key):
    with pytest.raises(SettingsError, match=f"survival.{key}: expected"):
        parse_settings(StudySettings, {"survival": {key: -1}})


def test_survival_training_without_survival_is_refused():
    with pytest.raises(SettingsError, match=r"survival.alignment: expected a value less than 1"):
        parse_settings(StudySettings, {"survival": {"alignment": 1.0}})
