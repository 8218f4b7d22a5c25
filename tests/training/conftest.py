"""A real signal store with one planted feature, sites cut from it, a linear network with `Network`'s interface."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from planted_site import (
    LinearNetwork,
    planted_bank,
    planted_cohort,
    planted_feature,
    planted_site,
    planted_store,
    study_of,
)

from fedecg.cohort import Cohort
from fedecg.config import StudySettings
from fedecg.signals import SignalStore
from fedecg.training import SiteData


@pytest.fixture(scope="session")
def feature() -> np.ndarray:
    """(240,) the planted feature of each record."""
    return planted_feature()


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> SignalStore:
    return planted_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    return planted_cohort()


@pytest.fixture(scope="session")
def make_site(store) -> Callable[..., SiteData]:
    """A site of some records: `make_site(rows, name, **columns)`."""
    return partial(planted_site, store)


@pytest.fixture(scope="session")
def bank_vectors() -> np.ndarray:
    """(2, 6) float32: two statements."""
    return planted_bank()


@pytest.fixture
def linear_network() -> Callable[..., LinearNetwork]:
    return LinearNetwork


@pytest.fixture
def study() -> Callable[..., StudySettings]:
    """`study(survival={...}, federation={...})`."""
    return study_of
