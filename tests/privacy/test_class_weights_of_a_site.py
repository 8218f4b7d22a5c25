"""Class weights of the alignment loss: public ones keep one patient's share within the clip, a site's own do not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from dp_sites import CODES, bank, noise_store, protection_of, site_of, small_network, study_with, weights_of

from fedecg.signals import SignalStore
from fedecg.training import SiteData, train_align

CLIP, PATIENTS = 0.01, 40
WeightsOf = Callable[[SiteData], np.ndarray]


class Everybody(np.random.Generator):
    """Lets every patient into every step."""

    def random(self, size=None, *_):
        return np.zeros(size)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SignalStore:
    return noise_store(tmp_path_factory.mktemp("store"))


def site_without(store: SignalStore, patient: int | None, weights_of_site: WeightsOf) -> SiteData:
    """Everybody states two codes and hardly the third, which the first patient alone states in full."""
    rows = np.array([row for row in range(PATIENTS) if row != patient])
    targets = np.zeros((len(rows), CODES), dtype=np.float32)
    targets[:] = [0.6, 0.39, 0.01]
    targets[rows == 0] = [0.0, 0.0, 1.0]
    site = replace(site_of(store, rows), targets=targets)
    return replace(site, class_weights=weights_of_site(site))


def public(_site: SiteData) -> np.ndarray:
    return np.array([0.5, 2.0, 4.0], dtype=np.float32)


def from_the_sites_records(site: SiteData) -> np.ndarray:
    """Inverse frequencies among this site's patients, as is usual where nothing is protected."""
    return (1 / (site.targets.sum(axis=0) + 1e-3)).astype(np.float32)


def one_patient_moves_a_step_by_at_most_the_clip(store: SignalStore, weights_of_site: WeightsOf) -> bool:
    step = {
        "local-steps": 1,
        "batch-size": 1,
        "optimizer": "sgd",
        "learning-rate": 1.0,
        "weight-decay": 0.0,
        "class-weights": "public",
        "reconstruction": 0.0,
        "masked-leads": 0,
    }
    settings = study_with(align=step, privacy={"clip": CLIP})
    dp = replace(protection_of(settings, noise=0.0), randomness=lambda: Everybody(np.random.PCG64(1)))

    def after(left_out: int | None):
        network = small_network(settings)
        train_align(network, site_without(store, left_out, weights_of_site), settings, 1, bank(), dp=dp)
        return weights_of(network)

    whole = after(None)
    assert (whole - weights_of(small_network(settings))).norm() > CLIP
    return all((whole - after(left_out)).norm() <= CLIP * (1 + 1e-3) for left_out in (0, 5))


def test_with_public_class_weights_one_patient_moves_a_step_by_at_most_the_clip(store):
    assert one_patient_moves_a_step_by_at_most_the_clip(store, public)


def test_class_weights_from_the_sites_records_are_noticed(store):
    assert not one_patient_moves_a_step_by_at_most_the_clip(store, from_the_sites_records)
