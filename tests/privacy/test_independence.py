"""The probe: a loss or a layer that couples patients stops training, a sum over patients does not."""

import numpy as np
import pytest
import torch
from dp_sites import BANK_DIM, SAMPLES, bank, baseline_of, noise_store, site_of, small_network, study_with
from torch import Tensor, nn

from fedecg.config import ModelSettings
from fedecg.errors import ModelError
from fedecg.model import Network, build_network, stage_tensors
from fedecg.objectives import bank_loss, cox_loss, infonce_loss, pooled_cox_loss
from fedecg.privacy import sample_gradients
from fedecg.privacy.independence import MOST_RECORDS, TOLERANCE, refuse_coupled_patients
from fedecg.training import SiteData

COUPLED = r"(?s)FECG-388.*changes with the other patients of its batch.*sum over patients"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> SiteData:
    return site_of(noise_store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def network() -> Network:
    return small_network(study_with(model={"dropout": 0.0}))


def bank_term(network: Network, site: SiteData, rows: np.ndarray) -> Tensor:
    projected = network.project(network.embed(site.signals(rows)))
    return bank_loss(
        projected, torch.from_numpy(bank()), torch.from_numpy(site.targets[rows]), network.temperature
    )


def pooled_term(network: Network, site: SiteData, rows: np.ndarray) -> Tensor:
    log_hazard = network.log_hazard(network.embed(site.signals(rows)))
    exposure = torch.from_numpy(baseline_of().at(site.follow_up_days(rows))).float()
    return pooled_cox_loss(log_hazard, torch.from_numpy(site.events(rows)), exposure, 2.0)


def contrast(network: Network, site: SiteData, rows: np.ndarray) -> Tensor:
    projected = network.project(network.embed(site.signals(rows)))
    same, targets = torch.from_numpy(site.state_the_same(rows)), torch.from_numpy(site.targets[rows] @ bank())
    return infonce_loss(projected, targets, same, 0.1)


def partial_likelihood(network: Network, site: SiteData, rows: np.ndarray) -> Tensor:
    log_hazard = network.log_hazard(network.embed(site.signals(rows)))
    return cox_loss(
        log_hazard, torch.from_numpy(site.events(rows)), torch.from_numpy(site.follow_up_days(rows))
    )


def probe(network: nn.Module, stage: str, loss, rows=range(12)) -> None:
    names = stage_tensors(network, stage, False)
    refuse_coupled_patients(
        network, names, lambda _step, batch: loss(batch), np.asarray(rows, dtype=np.int64)
    )


def passes(network: nn.Module, stage: str, loss, rows=range(12)) -> bool:
    try:
        probe(network, stage, loss, rows)
    except ModelError:
        return False
    return True


@pytest.mark.parametrize(("stage", "term"), [("align", bank_term), ("survival", pooled_term)])
@pytest.mark.parametrize("records", [2, 3, 4, 5, 12])
def test_a_sum_over_patients_passes(network, site, stage, term, records):
    assert passes(network, stage, lambda rows: term(network, site, rows), range(records))


@pytest.mark.parametrize("records", [0, 1])
def test_who_is_alone_depends_on_nobody(network, site, records):
    assert passes(network, "align", lambda rows: contrast(network, site, rows), range(records))


@pytest.mark.parametrize("records", [4, 12])
@pytest.mark.parametrize(("stage", "term"), [("align", contrast), ("survival", partial_likelihood)])
def test_a_contrast_and_a_partial_likelihood_are_refused(network, site, stage, term, records):
    with pytest.raises(ModelError, match=COUPLED):
        probe(network, stage, lambda rows: term(network, site, rows), range(records))


@pytest.mark.parametrize(("stage", "term"), [("align", bank_term), ("survival", pooled_term)])
def test_batch_norm_in_the_authors_preset_is_refused_by_numbers(site, stage, term):
    network = build_network(ModelSettings(preset="paper"), SAMPLES, BANK_DIM, seed=1)
    with pytest.raises(ModelError, match=COUPLED):
        probe(network, stage, lambda rows: term(network, site, rows))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_small_share_of_a_coupled_loss_in_a_sum_is_found(network, site, share):
    with pytest.raises(ModelError, match=COUPLED):
        probe(
            network,
            "align",
            lambda rows: (1 - share) * bank_term(network, site, rows) + share * contrast(network, site, rows),
        )


def test_dropout_that_is_not_the_same_for_all_batches_of_a_step_is_found(site):
    network = small_network(study_with(model={"dropout": 0.5}))
    with pytest.raises(ModelError, match=COUPLED):
        probe(network, "align", lambda rows: bank_term(network, site, rows))


def test_a_mean_over_those_with_events_is_refused(network, site):
    """Each term is a patient's own, but what it counts depends on how many others have the event."""

    def per_event(rows: np.ndarray) -> Tensor:
        return pooled_term(network, site, rows) * len(rows) / max(int(site.events(rows).sum()), 1)

    with pytest.raises(ModelError, match=COUPLED):
        probe(network, "survival", per_event)


def test_rounding_stays_far_below_the_tolerance(network, site, monkeypatch):
    monkeypatch.setattr("fedecg.privacy.independence.TOLERANCE", TOLERANCE / 5)
    assert passes(network, "align", lambda rows: bank_term(network, site, rows))
    assert passes(network, "survival", lambda rows: pooled_term(network, site, rows))


def test_a_gradient_that_is_not_finite_does_not_pass(network, site):
    with pytest.raises(ModelError, match="FECG-388"):
        probe(network, "align", lambda rows: bank_term(network, site, rows) * torch.inf)


def test_a_sampler_that_forgets_a_part_is_refused(network, site, monkeypatch):
    right = sample_gradients.SAMPLERS[nn.Linear]

    def forgets_the_bias(layer, features, gradient):
        rows = right(layer, features, gradient)
        rows.pop(layer.bias, None)
        return rows

    monkeypatch.setitem(sample_gradients.SAMPLERS, nn.Linear, forgets_the_bias)
    with pytest.raises(ModelError, match=r"(?s)FECG-389.*do not add up.*its own layer only.*fault of fedecg"):
        probe(network, "align", lambda rows: bank_term(network, site, rows))


def test_a_weight_that_is_read_past_its_layer_is_refused(network, site):
    def past(rows: np.ndarray) -> Tensor:
        return bank_term(network, site, rows) + network.projection.layers[1].weight.square().sum()

    with pytest.raises(ModelError, match="FECG-389"):
        probe(network, "align", past)


def test_the_probe_leaves_weights_statistics_mode_and_gradients_as_they_were(site):
    network = build_network(ModelSettings(preset="paper"), SAMPLES, BANK_DIM, seed=1).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match="FECG-388"):
        probe(network, "survival", lambda rows: pooled_term(network, site, rows))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_it_looks_at_a_few_records_only(network, site):
    seen: set[int] = set()

    def loss(rows: np.ndarray) -> Tensor:
        seen.update(rows.tolist())
        return bank_term(network, site, rows)

    probe(network, "align", loss, range(40))
    assert len(seen) == MOST_RECORDS
