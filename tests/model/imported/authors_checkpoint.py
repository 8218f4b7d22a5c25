"""The authors' weights by the formula of `tests/references/authors_encoder.py`, in the wrappings that they come in."""

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedecg.errors import ModelError
from fedecg.model import import_checkpoint

REFERENCE = Path(__file__).resolve().parents[2] / "references" / "authors_encoder.py"
State = dict[str, Tensor]


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("authors_encoder", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()
FACTS = json.loads(reference.FACTS.read_text())
OUTPUTS = dict(np.load(reference.OUTPUTS))


def encoder_of(state: State) -> State:
    """Their encoder alone, as `encoder.state_dict()` gives it."""
    return {name[8:]: tensor for name, tensor in state.items() if name.startswith("encoder.")}


def as_lightning(state: State) -> dict[str, Any]:
    """A checkpoint as their pretraining leaves it: prefix, projectors, optimiser, and a command line."""
    heads = {
        f"{head}_projector.{layer}.{kind}": torch.ones(3)
        for head in ("ecg", "text")
        for layer in (0, 2)
        for kind in ("weight", "bias")
    }
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": {f"network.{name}": tensor for name, tensor in state.items()} | heads,
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]}
        ],
        "hyper_parameters": {"args": argparse.Namespace(ae_type="ECG_attention_512", seed=72), "lr": 1e-3},
    }


def refusal(path: Path, out: Path, **signals: float) -> str:
    with pytest.raises(ModelError) as refused:
        import_checkpoint(path, out, signals)
    assert not out.exists()
    return str(refused.value)
