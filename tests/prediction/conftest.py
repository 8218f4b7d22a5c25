"""Simulated recordings as a signal store, as WFDB files and as a site folder; a small model that scores them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
import wfdb

from fedecg.cohort import Cohort, write_cohort
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import BaselineFile, PopulationFile, build_network, save_model
from fedecg.signals import LEADS, Recording, SignalStore, build_store
from fedecg_simulations.synthetic import consortium, make_recordings

RECORDS = 40
SIGNALS = SignalSettings(samples=256)
YEAR = 365.25
BASELINE = BaselineFile(
    edges_days=[0.0, 200.0, 700.0, 1500.0, 2000.0],
    cumulative_hazard=[0.0, 0.02, 0.05, 0.09, 0.09],
    variance=[0.0, 0.0001, 0.0003, 0.0007, 0.0007],
)
POPULATION = PopulationFile(risk_cuts=[-0.5, 0.0, 0.5], patients=[10, 40, 30, 20])
WriteRecord = Callable[..., Path]


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    """Simulated ECGs at 500 Hz in whole microvolts, as a cardiograph stores them."""
    ((_, patients, _),) = consortium({"city": RECORDS}, 2, 7)
    stack = make_recordings(patients, list(range(RECORDS)))
    return [
        Recording((np.rint(signal_mv * 1000) / 1000).astype(np.float32), patients.rate_hz)
        for signal_mv in stack
    ]


@pytest.fixture(scope="session")
def store(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> SignalStore:
    folder = tmp_path_factory.mktemp("prediction-store")
    return build_store(folder, "p" * 64, SIGNALS, recordings, powerline=SIGNALS.powerline)


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    """Every record a patient; every third has the event; half of them are the test part."""
    rng = np.random.default_rng(5)
    return Cohort(
        record=np.arange(RECORDS),
        patient=np.arange(RECORDS) + 500,
        part=np.array(["train", "test"] * (RECORDS // 2)),
        event=np.arange(RECORDS) % 3 == 0,
        follow_up_days=np.ceil(rng.uniform(100, 1900, RECORDS)),
        entry_days=np.zeros(RECORDS),
        died=np.zeros(RECORDS, dtype=np.bool_),
        age_years=np.full(RECORDS, 60.0),
        female=np.zeros(RECORDS),
        codes=({},) * RECORDS,
    )


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A model folder whose log hazards differ by patient; `make_model(baseline=None)` is aligned only."""

    def make(
        baseline: BaselineFile | None = BASELINE,
        population: PopulationFile | None = POPULATION,
        preset: str = "fedecg",
        poison: float | None = None,
    ) -> Path:
        settings = ModelSettings.model_validate({"preset": preset, "size": "small"})
        network = build_network(settings, SIGNALS.samples, 8, seed=3)
        if poison is not None:
            with torch.no_grad():
                next(network.risk.parameters()).fill_(poison)
        folder = tmp_path_factory.mktemp("model") / "model"
        save_model(folder, network, SIGNALS, "", baseline, population)
        return folder

    return make


@pytest.fixture(scope="session")
def model_folder(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture
def write_record(tmp_path: Path) -> WriteRecord:
    """Write a recording with the wfdb package; returns the record's name without ending."""

    def write(
        recording: Recording,
        name: str,
        unit: str = "mV",
        leads: tuple[str, ...] = LEADS,
        gain: float = 1000.0,
    ) -> Path:
        rows = [LEADS.index(lead) for lead in leads]
        wfdb.wrsamp(
            name,
            fs=recording.rate_hz,
            units=[unit] * len(leads),
            sig_name=list(leads),
            p_signal=recording.signal_mv[rows].T.astype(np.float64) * (1000 if unit == "uV" else 1),
            fmt=["16"] * len(leads),
            adc_gain=[gain] * len(leads),
            baseline=[0] * len(leads),
            write_dir=str(tmp_path),
        )
        return tmp_path / name

    return write


@pytest.fixture
def make_site(store: SignalStore, cohort: Cohort, tmp_path: Path) -> Callable[..., Path]:
    """A site folder; columns of the cohort can be replaced."""

    def make(signal_store: SignalStore = store, **columns: object) -> Path:
        folder = tmp_path / "site"
        write_cohort(Cohort(**{**cohort.__dict__, **columns}), folder / "cohort.csv")
        document = {"name": "our-hospital", "store": str(signal_store.folder), "cohort": "cohort.csv"}
        (folder / "site.toml").write_text(tomli_w.dumps(document))
        return folder

    return make
