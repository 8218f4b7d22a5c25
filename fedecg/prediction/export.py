"""The network as one program that other software runs: `torch.export` (.pt2) or ONNX, checked before it is written.

In:  a `Model`. Out: a file: preprocessed ECGs (N, 12, samples) float32 mV -> log hazards (N,), any N >= 1.
Called by `commands`.

Preprocessing and absolute risk are not in the program: the signal settings and the baseline hazard travel beside it in
the file, as JSON (extra file `about.json` of a .pt2, metadata `fedecg` of an ONNX model).
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.files import write_whole
from fedecg.model import Network
from fedecg.prediction.predictor import Model
from fedecg.signals import LEADS

__all__ = ["FORMATS", "Format", "export_network"]

Format = Literal["onnx", "torch-export"]

FORMATS: tuple[Format, ...] = ("onnx", "torch-export")
INPUT, OUTPUT = "signal_mv", "log_hazard"
TOLERANCE = 1e-4
# Tracing takes a batch of 1 for a constant; any other size stands for all.
TRACED, CHECKED = 2, (1, 5)
BATCH = "batch"
OPSET = 20  # ONNX 1.15 of 2023, the first with Gelu; runtimes of before it do not read the file

Float32 = NDArray[np.float32]
Program = Callable[[Float32], Float32]


def export_network(model: Model, format: Format, out: str | Path) -> float:
    """Write the network as a program.

    Args:
        model: of `load`.
        format: "torch-export" (read by `torch.export.load`) or "onnx" (needs `pip install 'fedecg[onnx]'`).
        out: the file, which appears whole or not at all.

    Returns:
        Largest difference to the network on random signals, no unit.

    Raises:
        ModelError: FECG-316, imported weights; FECG-348, the packages for ONNX are not installed; FECG-349, the
            program's outputs differ, have another shape or are not finite.
        RunError: FECG-601, the file cannot be written.
    """
    model.check_predicts()
    network = _LogHazard(model.saved.network).eval()
    about = json.dumps(
        {
            "input": f"{INPUT}: (N, {len(LEADS)}, samples) float32, mV, leads {', '.join(LEADS)}",
            "output": f"{OUTPUT}: (N,) float32",
            "signals": model.signals.model_dump(by_alias=True),
            "weights-sha256": model.saved.weights_sha256,
            "baseline": model.saved.baseline and model.saved.baseline.model_dump(by_alias=True),
        }
    )
    example = torch.zeros(TRACED, len(LEADS), model.signals.samples)
    content, run = (_onnx if format == "onnx" else _torch_export)(network, example, about)
    apart = _largest_difference(network, run, model.signals.samples)
    write_whole(Path(out), content)
    return apart


class _LogHazard(nn.Module):
    """Signals in, log hazards out: no mask, no maps."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, signal_mv: Tensor) -> Tensor:
        return self.network.log_hazard(self.network.embed(signal_mv))


def _exported(network: nn.Module, example: Tensor) -> Any:
    """The traced program, without the paths and lines of this machine that tracing notes at every node."""
    batch = torch.export.Dim(BATCH, min=1)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes={INPUT: {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _torch_export(network: nn.Module, example: Tensor, about: str) -> tuple[bytes, Program]:
    buffer = io.BytesIO()
    torch.export.save(_exported(network, example), buffer, extra_files={"about.json": about})
    buffer.seek(0)
    program = torch.export.load(buffer).module()
    return buffer.getvalue(), lambda signal_mv: program(torch.from_numpy(signal_mv)).detach().numpy()


def _onnx(network: nn.Module, example: Tensor, about: str) -> tuple[bytes, Program]:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ModelError(
            "FECG-348",
            "export to ONNX",
            found=f"{', '.join(missing)} not installed",
            expected="the packages of the extra fedecg[onnx]",
            fix="pip install 'fedecg[onnx]', or --format torch-export.",
        )
    # It tells every user that torchvision, which nothing here needs, is absent.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter warns of torch's own classes
        program = torch.onnx.export(
            _exported(network, example),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:  # as the old exporter, which writes a file by itself
        raise AssertionError("the dynamo exporter returns a program")
    document = program.model_proto
    _name_the_batch(document.graph)
    document.metadata_props.add(key="fedecg", value=about)
    import_module("onnx").checker.check_model(document, full_check=True)
    content: bytes = document.SerializeToString(deterministic=True)
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda signal_mv: np.asarray(session.run([OUTPUT], {INPUT: signal_mv})[0])


def _name_the_batch(graph: Any) -> None:
    """Call the first dimension `batch` as users will; torch calls it by a symbol of its own."""
    symbol = re.compile(rf"\b{re.escape(graph.input[0].type.tensor_type.shape.dim[0].dim_param)}\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = symbol.sub(BATCH, size.dim_param)


def _largest_difference(network: nn.Module, run: Program, samples: int) -> float:
    """On random signals of half a millivolt, in batches of other sizes than the traced one."""
    draw = np.random.default_rng(0)
    apart = [0.0]
    for size in CHECKED:
        signal_mv = draw.normal(scale=0.5, size=(size, len(LEADS), samples)).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(signal_mv)).numpy()
        found = run(signal_mv)
        with np.errstate(invalid="ignore"):  # inf - inf of a network that diverged is NaN, which is told
            apart.append(float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf)
    largest = float(np.max(apart))  # not max(): that loses a NaN
    if not largest <= TOLERANCE:
        raise ModelError(
            "FECG-349",
            "exported program",
            found=f"log hazards up to {largest:.1e} from the network's",
            expected=f"finite ones, at most {TOLERANCE:g} apart",
            fix="See whether fedecg verify finds the model sound; if so, another version of torch may export it.",
        )
    return largest
