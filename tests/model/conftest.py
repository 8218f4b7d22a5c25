"""Shared by the tests of the network: the slow reference, signals, and a fixed seed around each test."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

REFERENCE = Path(__file__).resolve().parents[2] / "benchmarks" / "_authors_network.py"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


@pytest.fixture(scope="session")
def authors() -> ModuleType:
    """`benchmarks/_authors_network.py`, which is no package."""
    spec = importlib.util.spec_from_file_location("_authors_network", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def signal_mv() -> Tensor:
    """Six records of 320 samples, about 0.3 mV."""
    return 0.3 * torch.randn(6, 12, 320)
