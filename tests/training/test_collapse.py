"""Collapse: the effective rank by hand, a loss that collapses and one that does not, when and where one looks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_site import SAMPLES, LinearNetwork, study_of
from torch import nn

from fedecg.text.separation import effective_rank
from fedecg.training import Ranks, ranks, train_align
from fedecg.training.collapse import FEWEST_RECORDS, MOST_RECORDS, ranks_are_due

STATEMENTS, DIM, EMBEDDING = 12, 16, 16


class Wide(LinearNetwork):
    """The linear network with room for 16 directions."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12 * SAMPLES, EMBEDDING), nn.Dropout(dropout))
        self.projection = nn.Linear(EMBEDDING, DIM)
        self.double()
        draw = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for layer in (self.encoder[0], self.projection):
                layer.weight.normal_(0, layer.weight.shape[1] ** -0.5, generator=draw)
                layer.bias.zero_()


@pytest.fixture(scope="session")
def stating(make_site):
    """240 records, each of which states one of 12 things that can be read off its signal."""
    site = make_site(range(240))
    flat = site.signals(np.arange(240)).numpy().reshape(240, -1)
    stated = (flat @ np.random.default_rng(0).normal(size=(flat.shape[1], STATEMENTS))).argmax(axis=1)
    return replace(site, targets=np.eye(STATEMENTS, dtype=np.float32)[stated])


def uncentred_bank() -> np.ndarray:
    """12 statements as a language model gives them: mostly what all have in common (cosines near 0.9)."""
    own = np.random.default_rng(1).normal(size=(STATEMENTS, DIM))
    vectors = own / np.linalg.norm(own, axis=1, keepdims=True)
    vectors[:, 0] += 3
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_effective_rank_of_axes_of_known_power_by_hand():
    axes = np.zeros((8, 3), dtype=np.float32)
    axes[:6] = np.concatenate([np.diag([3.0, 3, 1]), -np.diag([3.0, 3, 1])])
    share = np.array([9, 9, 1]) / 19
    assert np.isclose(effective_rank(axes + np.float32(5)), np.exp(-(share * np.log(share)).sum()), rtol=1e-5)
    assert effective_rank(np.ones((5, 3), dtype=np.float32)) == 0


def test_paper_collapses_on_a_degenerate_bank_and_is_detected_while_bank_does_not(stating):
    """With nearly the same vector for every statement one point is nearly right for all: weight decay does the rest."""
    vectors, found = uncentred_bank(), {}
    for loss in ("paper", "bank"):
        network = Wide()
        settings = study_of(
            align={
                "loss": loss, "rounds": 3, "local-steps": 60, "batch-size": 60, "masked-leads": 0,
                "reconstruction": 0.0, "optimizer": "sgd", "learning-rate": 0.3, "weight-decay": 0.1,
            }
        )  # fmt: skip
        trained = [train_align(network, stating, settings, number, vectors) for number in (1, 2, 3)]
        assert trained[-1].loss < trained[0].loss
        assert [one.ranks is None for one in trained] == [
            True,
            True,
            False,
        ]  # after the last round, or every fifth
        found[loss] = trained[-1].ranks
    assert found["paper"].collapsed
    assert found["paper"].embeddings < 2
    assert not found["bank"].collapsed
    assert found["paper"].targets == found["bank"].targets > 6


def test_ranks_change_neither_the_network_nor_torchs_generator_and_hide_nothing(stating):
    network = Wide(dropout=0.5).train()
    before = [weight.detach().clone() for weight in network.parameters()]
    state = torch.get_rng_state()
    first = ranks(network, stating, uncentred_bank(), 0)
    assert torch.equal(torch.get_rng_state(), state)  # no dropout
    assert network.training
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
    assert ranks(network, stating, uncentred_bank(), 0, batch_size=17) == pytest.approx(first)
    assert first.records == 240


def test_ranks_are_of_validation_records_where_they_are_enough_never_of_test_records(stating):
    def looked_at(parts, quiet=0):
        cohort = replace(stating.cohort, part=np.array(parts))
        targets = stating.targets.copy()
        targets[:quiet] = 0
        seen = []
        network = Wide()
        project = network.embed
        network.embed = lambda signal, mask=None: (seen.append(len(signal)), project(signal, mask))[1]
        found = ranks(network, replace(stating, cohort=cohort, targets=targets), uncentred_bank(), 0)
        return found.records if found else None, sum(seen)

    assert looked_at(["train"] * 100 + ["validation"] * 140) == (140, 140)
    assert looked_at(["train"] * 100 + ["validation"] * 100 + ["test"] * 40) == (100, 100)
    assert looked_at(["test"] * 240) == (None, 0)
    assert looked_at(["train"] * 240, quiet=240 - FEWEST_RECORDS) == (FEWEST_RECORDS, FEWEST_RECORDS)
    assert looked_at(["train"] * 240, quiet=241 - FEWEST_RECORDS) == (None, 0)
    assert MOST_RECORDS == 512


def test_below_half_is_a_collapse_and_half_is_none():
    assert Ranks(100, 4.9, 10.0).collapsed
    assert not Ranks(100, 5.0, 10.0).collapsed
    assert not Ranks(100, 1.0, 1.0).collapsed


def test_it_is_looked_at_every_fifth_round_and_after_the_last():
    stage = study_of(align={"rounds": 12}).align
    assert [number for number in range(1, 13) if ranks_are_due(stage, number)] == [5, 10, 12]
