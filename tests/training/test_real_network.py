"""Rounds with the real network: both presets, what a stage may move, bit-equal repetition, one record."""

import copy

import numpy as np
import pytest
import torch

from fedecg.config import ModelSettings
from fedecg.errors import ModelError
from fedecg.model import build_network, stage_tensors, to_vector
from fedecg.training import log_hazards, site_baseline, survival_sums, train_align, train_survival

SMALL = ModelSettings(size="small")
PAPER = ModelSettings(preset="paper")


def network_of(settings, samples=256):
    return build_network(settings, samples, bank_dim=6, seed=0)


def changed_tensors(before, after):
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_a_survival_round_moves_its_tensors_alone_and_repeats_bit_by_bit(make_site, study):
    site, start = make_site(range(60)), network_of(SMALL)
    settings = study(survival={"batch-size": 20, "local-steps": 3, "reconstruction": 0.3})
    baseline = site_baseline(start, site, site.rows("train"), 10.0)
    vectors = []
    for _ in range(2):
        network = copy.deepcopy(start)
        trained = train_survival(network, site, settings, 1, baseline)
        vectors.append(to_vector(network, stage_tensors(network, "survival", True)))
        torch.rand(5)
    assert np.array_equal(*vectors)
    assert changed_tensors(start, network) == set(stage_tensors(network, "survival", True))
    assert trained.steps == 3
    assert np.isfinite(trained.loss)


def test_an_alignment_round_moves_its_tensors_alone_and_repeats_bit_by_bit(make_site, study, bank_vectors):
    site, start = make_site(range(60)), network_of(SMALL)
    settings = study(align={"batch-size": 20, "local-steps": 3})
    vectors = []
    for _ in range(2):
        network = copy.deepcopy(start)
        train_align(network, site, settings, 1, bank_vectors)
        vectors.append(to_vector(network, stage_tensors(network, "align", True)))
        torch.rand(5)
    assert np.array_equal(*vectors)
    assert changed_tensors(start, network) == set(stage_tensors(network, "align", True))


def test_alignment_leaves_the_paper_presets_risk_head_fit_for_evaluation(make_site, study, bank_vectors):
    """Log hazards of evaluation (running statistics) are as wide as those of training (statistics of the batch)."""
    site, network = make_site(range(60)), network_of(ModelSettings(preset="paper"))
    before = network.risk.layers[2].weight.clone()
    train_align(network, site, study(align={"batch-size": 30, "local-steps": 30}), 1, bank_vectors)
    assert torch.equal(network.risk.layers[2].weight, before)
    evaluated = log_hazards(network, site, site.rows("train"))
    network.train()
    with torch.no_grad():
        trained = network.log_hazard(network.embed(site.signals(site.rows("train")))).numpy()
    assert 0.2 < evaluated.std() / trained.std() < 5


def test_the_planted_feature_is_found_by_alignment_and_survival_in_turn(
    make_site, study, bank_vectors, feature
):
    train, everyone, network = make_site(range(180)), make_site(range(240)), network_of(SMALL)
    settings = study(
        align={"batch-size": 60, "local-steps": 15, "learning-rate": 2e-3, "masked-leads": 0},
        survival={"batch-size": 60, "local-steps": 15, "learning-rate": 2e-3},
    )
    align = [train_align(network, train, settings, round_index, bank_vectors).loss for round_index in (1, 2)]
    survival = []
    for round_index in (1, 2):
        baseline = site_baseline(network, train, train.rows("train"), 10.0)
        survival.append(train_survival(network, train, settings, round_index, baseline).loss)
    assert align[1] < align[0]
    assert survival[1] < survival[0]
    scores = log_hazards(network, everyone, np.arange(180, 240))
    assert np.corrcoef(scores, feature[180:])[0, 1] > 0.5


def test_scores_hardly_depend_on_the_batch_and_sums_are_finite(make_site):
    site, network = make_site(range(30)), network_of(SMALL).train()
    one_by_one = log_hazards(network, site, np.arange(30), batch_size=1)
    np.testing.assert_allclose(log_hazards(network, site, np.arange(30)), one_by_one, rtol=1e-4, atol=1e-5)
    sums = survival_sums(network, site, site.rows("train"), np.array([0.0, 200.0]), 10.0)
    assert sums.exp_sums.sum() == pytest.approx(np.exp(one_by_one).sum(), rel=1e-4)


def test_a_site_with_one_patient_trains_the_fedecg_preset(make_site, study, bank_vectors):
    site, network = make_site([0], event=np.array([True])), network_of(SMALL)
    settings = study(align={"local-steps": 2}, survival={"local-steps": 2, "baseline": "site"})
    assert train_align(network, site, settings, 1, bank_vectors).steps == 2
    assert train_survival(network, site, settings, 1, None).steps == 2
    assert np.isfinite(log_hazards(network, site, np.array([0]))).all()


def test_the_paper_preset_refuses_one_record_and_trains_on_two(make_site, study, bank_vectors):
    network = network_of(PAPER)
    settings = study(survival={"loss": "cox-batch", "local-steps": 1}, align={"local-steps": 1})
    lonely, pair = (make_site(range(n), event=np.ones(n, dtype=bool)) for n in (1, 2))
    for train in (
        lambda site: train_survival(network, site, settings, 1, None),
        lambda site: train_align(network, site, settings, 1, bank_vectors),
    ):
        with pytest.raises(ModelError) as refusal:
            train(lonely)
        assert refusal.value.code == "FECG-324"
        assert np.isfinite(train(pair).loss)
