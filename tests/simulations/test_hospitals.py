"""Virtual sites on disk as hospitals would have them: one folder each, nothing shared, the same patients and ECGs."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedecg.cohort import read_cohort
from fedecg.config import load_study
from fedecg.signals import SignalStore
from fedecg_simulations.cli import main
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.sources import load_dataset

CONFIG = str(Path(__file__).parents[2] / "configs" / "two-hospitals.toml")
SMALL = ["data.sites.city=30", "data.sites.coast=20", "data.test-patients=10"]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "hospitals"
    assert main(["hospitals", CONFIG, "--out", str(out), "--set", *SMALL]) == 0
    return out


def test_each_hospital_holds_its_own_patients_and_their_ecgs(hospitals: Path) -> None:
    settings = load_study(CONFIG, SMALL)
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    assert sorted(folder.name for folder in hospitals.iterdir()) == sorted(parts)
    for name, rows in parts.items():
        cohort = read_cohort(hospitals / name / "cohort.csv")
        (folder,) = (hospitals / name / "store").iterdir()
        store = SignalStore.open(folder)
        expected = dataset.cohort.select(rows)
        assert len(store.codes) == len(cohort) == len(expected)
        assert np.array_equal(cohort.patient, expected.patient)
        assert np.array_equal(cohort.follow_up_days, expected.follow_up_days)
        assert np.array_equal(cohort.record, np.arange(len(cohort)))


def test_whoever_finds_the_folder_is_told_that_outcomes_are_simulated(hospitals: Path) -> None:
    assert "outcomes are SIMULATED" in (hospitals / "city" / "ORIGIN.txt").read_text()


def test_a_folder_that_is_not_empty_is_refused(hospitals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hospitals", CONFIG, "--out", str(hospitals), "--set", *SMALL]) == 1
    assert "FECG-607 folder for the hospitals: found one that is not empty" in capsys.readouterr().err


def test_the_numbers_come_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hospitals", CONFIG, "--out", str(tmp_path / "h"), "--json", "--set", *SMALL]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(document["patients"]) == ["city", "coast"]
