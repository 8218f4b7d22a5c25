"""An alignment round: learns what the codes state, hides leads, repeats bit by bit, sound at the edges."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fedecg.training import train_align

LOSSES = [
    {"loss": "bank"},
    {"loss": "paper"},
    {"loss": "infonce"},
    {"loss": "bank", "reconstruction": 0.0, "masked-leads": 0},
]


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def moved(network, site, settings, bank_vectors, round_index=1):
    changed = copy.deepcopy(network)
    trained = train_align(changed, site, settings, round_index, bank_vectors)
    return vector(changed) - vector(network), trained


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_falls_and_held_out_ecgs_point_at_their_statement(
    make_site, linear_network, study, bank_vectors, loss
):
    network, train, rest = linear_network(dropout=0.1), make_site(range(180)), make_site(range(180, 240))
    settings = study(align={"batch-size": 60, "local-steps": 30, "learning-rate": 3e-4, **loss})
    losses = [train_align(network.train(), train, settings, round, bank_vectors).loss for round in range(3)]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        projected = network.eval().project(network.embed(rest.signals(np.arange(60)))).float()
    similarity = torch.nn.functional.cosine_similarity(
        projected[:, None], torch.from_numpy(bank_vectors), dim=2
    )
    assert (similarity.argmax(dim=1).numpy() == rest.targets.argmax(axis=1)).mean() > 0.8


@pytest.mark.parametrize("loss", LOSSES)
def test_a_repeated_round_is_bit_equal_and_leaves_torchs_generator_alone(
    make_site, linear_network, study, bank_vectors, loss
):
    network, site = linear_network(dropout=0.3), make_site(range(40))
    settings = study(align={"batch-size": 16, "local-steps": 4, **loss})
    first, trained = moved(network, site, settings, bank_vectors)
    torch.rand(17)
    state = torch.get_rng_state()
    again, _ = moved(network, site, settings, bank_vectors)
    assert torch.equal(again, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert (trained.patients, trained.steps) == (40, 4)
    assert trained.events == site.cohort.event.sum()
    assert not torch.equal(moved(network, site, settings, bank_vectors, round_index=2)[0], first)
    reseeded = settings.model_copy(update={"seed": 1})
    assert not torch.equal(moved(network, site, reseeded, bank_vectors)[0], first)


def test_a_step_hides_as_many_leads_as_set_and_reconstructs_all_twelve(
    make_site, linear_network, study, bank_vectors
):
    network, masks, targets = linear_network(), [], []
    embed, reconstruction_target = network.embed, network.reconstruction_target
    network.embed = lambda signal, mask=None: (masks.append(mask), embed(signal, mask))[1]
    network.reconstruction_target = lambda signal: (targets.append(signal), reconstruction_target(signal))[1]
    site = make_site(range(20))
    train_align(network, site, study(align={"masked-leads": 5, "local-steps": 30}), 1, bank_vectors)
    assert {int((~mask).sum()) for mask in masks} == {5}
    assert len({tuple(mask.tolist()) for mask in masks}) > 20
    assert torch.stack(masks).any(dim=0).all()
    assert all((signal.abs().amax(dim=(0, 2)) > 0).all() for signal in targets)


def test_a_step_of_two_sites_averaged_by_patients_is_the_pooled_step(
    make_site, linear_network, study, bank_vectors
):
    align = {
        "batch-size": 500, "local-steps": 1, "optimizer": "sgd", "learning-rate": 0.05, "weight-decay": 0.0,
        "clip-norm": 1e9, "masked-leads": 0,
    }  # fmt: skip
    network, settings = linear_network(), study(align=align)
    whole, parts = make_site(range(90)), [make_site(range(25)), make_site(range(25, 90))]
    average = sum(moved(network, part, settings, bank_vectors)[0] * len(part.cohort) for part in parts) / 90
    expected, _ = moved(network, whole, settings, bank_vectors)
    assert (average - expected).norm() < 1e-9 * expected.norm()
    assert expected.norm() > 1e-4


@pytest.mark.parametrize("patients", [0, 1])
def test_a_site_of_one_patient_or_none_never_gives_nan(
    make_site, linear_network, study, bank_vectors, patients
):
    step, trained = moved(
        linear_network(), make_site(range(patients)), study(align={"local-steps": 2}), bank_vectors
    )
    assert torch.isfinite(step).all()
    assert trained.steps == 2 * patients
    assert trained.patients == patients


def test_a_site_whose_records_state_nothing_reconstructs_or_stays_as_it_was(
    make_site, linear_network, study, bank_vectors
):
    site = make_site(range(10))
    site.targets[:] = 0
    step, trained = moved(linear_network(), site, study(align={"local-steps": 2}), bank_vectors)
    assert trained.steps == 2
    assert step.norm() > 0
    step, trained = moved(linear_network(), site, study(align={"reconstruction": 0.0}), bank_vectors)
    assert (trained.patients, trained.steps, trained.loss) == (10, 0, 0.0)
    assert step.norm() == 0


def test_ecgs_without_a_known_outcome_are_learned_from_as_those_with_one(
    make_site, linear_network, study, bank_vectors
):
    network, settings = linear_network(), study(align={"batch-size": 16, "local-steps": 4})
    known = make_site(range(40))
    unknown = np.arange(40) % 3 > 0
    outcomes = {
        "part": np.where(unknown, "align", "train"),
        "event": known.cohort.event & ~unknown,
        "follow_up_days": np.where(unknown, np.nan, known.cohort.follow_up_days),
    }
    first, trained = moved(network, known, settings, bank_vectors)
    second, other = moved(network, make_site(range(40), **outcomes), settings, bank_vectors)
    assert torch.equal(first, second)
    assert (trained.patients, other.patients) == (40, 40)
    assert other.events < trained.events


def test_ecgs_that_judge_are_not_learned_from(make_site, linear_network, study, bank_vectors):
    parts = np.array(["train"] * 20 + ["validation"] * 10 + ["test"] * 10)
    settings = study(align={"batch-size": 16, "local-steps": 4})
    some, trained = moved(linear_network(), make_site(range(40), part=parts), settings, bank_vectors)
    alone, _ = moved(linear_network(), make_site(range(20)), settings, bank_vectors)
    assert torch.equal(some, alone)
    assert trained.patients == 20


def test_class_weights_of_the_site_reach_the_loss(make_site, linear_network, study, bank_vectors):
    site, settings = make_site(range(40)), study(align={"local-steps": 2, "class-weights": "public"})
    plain, _ = moved(linear_network(), site, settings, bank_vectors)
    ones = dataclasses.replace(site, class_weights=np.ones(2, dtype=np.float32))
    assert torch.equal(moved(linear_network(), ones, settings, bank_vectors)[0], plain)
    uneven = dataclasses.replace(site, class_weights=np.array([4, 0.25], dtype=np.float32))
    assert not torch.equal(moved(linear_network(), uneven, settings, bank_vectors)[0], plain)


def test_a_round_tells_how_many_records_state_something(make_site, linear_network, study, bank_vectors):
    site = make_site(range(30))
    site.targets[:12] = 0
    _, trained = moved(linear_network(), site, study(align={"local-steps": 1}), bank_vectors)
    assert (trained.stated, trained.ranks) == (18, None)
    _, last = moved(linear_network(), site, study(align={"local-steps": 1, "rounds": 1}), bank_vectors)
    assert last.ranks.records == 18
