"""Prediction from files against the network alone: 200 WFDB records of 10 s at 500 Hz, network of the default size.

    .venv/bin/python benchmarks/predict.py

One line of JSON: `ratio` = records a second of `predict_files` (read, judge, preprocess, predict, risks) / records a
second of the network's forward pass on ready arrays, in batches of the same size; at least 0.7 is wanted. Both are
the best of several takes, taken in turns, on copies of generated records written into a temporary folder.
Measure with nothing else running. Told besides, each with its own name: the same in processor time of all threads,
the small network, and records of 10 s at 100 Hz (PTB-XL's other form).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb

import fedecg
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import BaselineFile, PopulationFile, build_network, save_model
from fedecg.prediction.files import predict_files
from fedecg.prediction.predictor import BATCH, Model
from fedecg.signals import LEADS, Recording
from fedecg_simulations.synthetic import consortium, make_recordings

RECORDS, GENERATED, TAKES = 200, 20, 10


class Best(NamedTuple):
    """The best take."""

    clock_s: float
    processor_s: float


def saved_model(folder: Path, size: str) -> Model:
    """An untrained network of the default signals; its speed is that of a trained one."""
    signals = SignalSettings()
    network = build_network(ModelSettings.model_validate({"size": size}), signals.samples, 384, seed=0)
    years = np.arange(13.0)
    baseline = BaselineFile(
        edges_days=(years * 365.25).tolist(),
        cumulative_hazard=(years * 0.01).tolist(),
        variance=(years * 1e-5).tolist(),
    )
    population = PopulationFile(risk_cuts=np.linspace(-2, 2, 49).tolist(), patients=[100] * 50)
    save_model(folder, network, signals, "", baseline, population)
    return fedecg.load(folder)


def recordings_at(rate_hz: float) -> list[Recording]:
    """Copies of generated records, at their 500 Hz or with samples left out."""
    ((_, patients, _),) = consortium({"city": GENERATED}, 1, 0)
    every = round(patients.rate_hz / rate_hz)
    made = [
        Recording(signal_mv[:, ::every], rate_hz)
        for signal_mv in make_recordings(patients, list(range(GENERATED)))
    ]
    return [made[number % GENERATED] for number in range(RECORDS)]


def write_records(folder: Path, recordings: list[Recording]) -> list[str]:
    """Names of the WFDB records."""
    folder.mkdir()
    for number, recording in enumerate(recordings):
        wfdb.wrsamp(
            f"r{number}",
            fs=recording.rate_hz,
            units=["mV"] * len(LEADS),
            sig_name=list(LEADS),
            p_signal=recording.signal_mv.T.astype(np.float64),
            fmt=["16"] * len(LEADS),
            adc_gain=[1000.0] * len(LEADS),
            baseline=[0] * len(LEADS),
            write_dir=str(folder),
        )
    return [str(folder / f"r{number}") for number in range(RECORDS)]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long it takes by the clock, and in processor time."""
    start, start_processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_processor


def measure(model: Model, names: list[str], recordings: list[Recording]) -> tuple[Best, Best]:
    """Best seconds (clock, processor) of the network alone and of prediction from files."""
    prepared = [model.prepare(recording).counts for recording in recordings]
    ready = np.stack([counts for counts in prepared if counts is not None])
    batches = [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]
    takes = np.array(
        [
            (
                seconds(lambda: [model.log_hazards(batch) for batch in batches]),
                seconds(lambda: predict_files(model, names)),
            )
            for _ in range(TAKES)
        ]
    )
    network, files = takes.min(axis=0)
    return Best(*network), Best(*files)


def main() -> None:
    """Measure and print."""
    fast, slow = recordings_at(500.0), recordings_at(100.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, small = (saved_model(folder / size, size) for size in ("base", "small"))
        names, slow_names = write_records(folder / "500", fast), write_records(folder / "100", slow)
        network, files = measure(base, names, fast)
        slow_network, slow_files = measure(base, slow_names, slow)
        small_network, small_files = measure(small, names, fast)
    print(
        json.dumps(
            {
                "benchmark": "predict",
                "ratio": round(network.clock_s / files.clock_s, 3),
                "peer": "the network's forward pass on ready arrays",
                "records": RECORDS,
                "records-a-second": round(RECORDS / files.clock_s, 1),
                "records-a-second-network": round(RECORDS / network.clock_s, 1),
                "ratio-processor-time": round(network.processor_s / files.processor_s, 3),
                "processor-ms-a-record": round(1e3 * files.processor_s / RECORDS, 3),
                "processor-ms-a-record-network": round(1e3 * network.processor_s / RECORDS, 3),
                "ratio-100-hz": round(slow_network.clock_s / slow_files.clock_s, 3),
                "ratio-small-network": round(small_network.clock_s / small_files.clock_s, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
