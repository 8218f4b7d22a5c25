"""Prediction from files against the network alone: 200 WFDB records of 10 s at 500 Hz, network of the default size.

    .venv/bin/python benchmarks/predict.py

One line of JSON: `ratio` = records a second of `predict_files` (read, judge, preprocess, predict, risks) / records a
second of the network's forward pass on ready arrays, in batches of the same size; at least 0.7 is wanted. Both are
the best of several takes, taken in turns, on copies of generated records written into a temporary folder.
Measure with nothing else running.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import wfdb

import fedecg
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import BaselineFile, PopulationFile, build_network, save_model
from fedecg.prediction.files import predict_files
from fedecg.prediction.predictor import BATCH, Model
from fedecg.signals import LEADS, Recording
from fedecg_simulations.synthetic import consortium, make_recordings

RECORDS, GENERATED, TAKES = 200, 20, 5


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


def write_records(folder: Path) -> tuple[list[str], list[Recording]]:
    """Names of the WFDB records, and what was written."""
    ((_, patients, _),) = consortium({"city": GENERATED}, 1, 0)
    made = [
        Recording(signal_mv, patients.rate_hz)
        for signal_mv in make_recordings(patients, list(range(GENERATED)))
    ]
    copies = [made[number % GENERATED] for number in range(RECORDS)]
    for number, recording in enumerate(copies):
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
    return [str(folder / f"r{number}") for number in range(RECORDS)], copies


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(model: Model, names: list[str], recordings: list[Recording]) -> tuple[float, float]:
    """Best seconds of the network alone and of prediction from files."""
    prepared = [model.prepare(recording).counts for recording in recordings]
    ready = np.stack([counts for counts in prepared if counts is not None])
    batches = [ready[start : start + BATCH] for start in range(0, len(ready), BATCH)]
    takes = [
        (
            seconds(lambda: [model.log_hazards(batch) for batch in batches]),
            seconds(lambda: predict_files(model, names)),
        )
        for _ in range(TAKES)
    ]
    return min(take[0] for take in takes), min(take[1] for take in takes)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names, recordings = write_records(folder)
        network, files = measure(saved_model(folder / "base", "base"), names, recordings)
        small_network, small_files = measure(saved_model(folder / "small", "small"), names, recordings)
    print(
        json.dumps(
            {
                "benchmark": "predict",
                "ratio": round(network / files, 3),
                "peer": "the network's forward pass on ready arrays",
                "records": RECORDS,
                "records-a-second": round(RECORDS / files, 1),
                "records-a-second-network": round(RECORDS / network, 1),
                "ratio-small-network": round(small_network / small_files, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
