"""What the authors' own network answers on weights made by a formula: the reference of `test_imported.py`.

In:  a copy of their public repository (cherise215/LLM-ECG-Dual-Attention), which is never committed here.
Out: `authors_encoder.json` (names, shapes of their state) and `authors_encoder.npz` (their outputs) beside this file.

    git clone https://github.com/cherise215/LLM-ECG-Dual-Attention /tmp/authors
    .venv/bin/python tests/references/authors_encoder.py /tmp/authors $(git -C /tmp/authors rev-parse HEAD)

The test makes the same weights by the same formula and needs none of their code. Numbers come from SplitMix64 over
(name, index), integers until the last step, so that any machine gets the same ones.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import types
import typing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).resolve().parent
FACTS, OUTPUTS = HERE / "authors_encoder.json", HERE / "authors_encoder.npz"
LENGTHS = (608, 1024)
RECORDS = 3
EVERY = 8  # of the reconstructed samples, one in so many is kept


def uniform(name: str, size: int) -> NDArray[np.float64]:
    """Numbers in [-1, 1) that depend on the name and the place alone, (size,).

    Source: Steele, Lea & Flood 2014 (SplitMix64), started from the first 8 bytes of sha256(name).
    """
    start = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        mixed = start + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**52 - 1


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the state by its name: layers keep the size of what passes them, norms differ from their start."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    values = uniform(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        values = 1 + 0.5 * values
    elif len(shape) == 1:
        scale = name.endswith(".weight")  # of a norm
        values = 1 + 0.3 * values if scale else 0.2 * values
    else:
        values = values * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Every tensor of a state, by the names and shapes that the reference recorded."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def signals(samples: int) -> Tensor:
    """(3, 12, samples), each lead of about unit variance, the same for all."""
    waves = uniform(f"signals of {samples}", RECORDS * 12 * samples).reshape(RECORDS, 12, samples)
    smooth = sum(np.roll(waves, step, axis=2) for step in range(5))
    return torch.from_numpy((smooth / smooth.std()).astype(np.float32))


def _shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def _their_network(samples: int, without_linear: bool) -> torch.nn.Module:
    from multi_modal_heart.model.ecg_net_attention import ECGAttentionAE

    sizes = {"z_dims": 512, "linear_out": 512, "downsample_factor": 5, "base_feature_dim": 4}
    kinds = {"if_VAE": False, "use_attention_pool": False, "apply_batchwise_dropout": True}
    return ECGAttentionAE(
        num_leads=12, time_steps=samples, no_linear_in_E=without_linear, **sizes, **kinds
    ).eval()


def _record(samples: int, outputs: dict[str, NDArray[np.float32]]) -> dict[str, list[int]]:
    network = _their_network(samples, without_linear=True)
    shapes = _shapes(network)
    network.load_state_dict(weights(shapes))
    with torch.inference_mode():
        embedding = network.encoder(signals(samples))
        lead, time = network.encoder.get_attention()
        outputs[f"embedding_{samples}"] = embedding.numpy()
        outputs[f"lead_attention_{samples}"] = lead.numpy()
        if samples == LENGTHS[0]:
            outputs[f"time_attention_{samples}"] = torch.stack([one[0] for one in time]).numpy()
        outputs[f"reconstruction_{samples}"] = network.decoder(embedding)[:, :, ::EVERY].numpy()
    return shapes


def main(theirs: str, commit: str) -> None:
    """Run their code, a copy of that commit, once and write what came out."""
    sys.path.insert(0, theirs)
    for name in (
        "fastai",
        "fastai.layers",
        "fastai.core",
    ):  # of all that they import this network uses the types
        module = types.ModuleType(name)
        vars(module).update({kind: getattr(typing, kind) for kind in typing.__all__})
        vars(module)["Floats"] = float | list  # of fastai 1
        sys.modules.setdefault(name, module)
    outputs: dict[str, NDArray[np.float32]] = {}
    shapes = {str(samples): _record(samples, outputs) for samples in LENGTHS}
    with_linear = _shapes(_their_network(LENGTHS[0], without_linear=False))
    facts = {
        "repository": "cherise215/LLM-ECG-Dual-Attention",
        "commit": commit,
        "made-with": {"torch": torch.__version__, "machine": platform.machine()},
        "shapes": shapes,
        "extra-with-linear": {
            name: shape for name, shape in with_linear.items() if name not in shapes[str(LENGTHS[0])]
        },
    }
    text = json.dumps(facts, indent=1)
    FACTS.write_text(
        re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda one: f"[{' '.join(one[1].split())}]", text) + "\n"
    )
    np.savez_compressed(OUTPUTS, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
