"""The authors' checkpoint in memory, a way to save it, and the model folder that is made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoint import FACTS, State, as_lightning, reference

from fedecg.model import import_checkpoint


@pytest.fixture(scope="session")
def states() -> dict[int, State]:
    """T -> the authors' autoencoder with weights by the formula, as their `ECGAttentionAE` names them."""
    return {samples: reference.weights(FACTS["shapes"][str(samples)]) for samples in reference.LENGTHS}


@pytest.fixture
def state(states: dict[int, State]) -> State:
    return dict(states[608])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(content: object, name: str = "authors.ckpt", **how: Any) -> Path:
        torch.save(content, tmp_path / name, **how)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def folder(states: dict[int, State], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an imported Lightning checkpoint, T = 608."""
    place = tmp_path_factory.mktemp("imported")
    torch.save(as_lightning(states[608]), place / "authors.ckpt")
    import_checkpoint(place / "authors.ckpt", place / "model")
    return place / "model"
