"""A cohort that `fedecg cohort build` wrote, as the data set of a study in one place; and the paper's grids on it."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from fedecg.cli import main
from fedecg.errors import CohortError
from fedecg.signals.recording import LEADS
from fedecg_simulations.grid_plan import load_grid
from fedecg_simulations.own_cohort import load_own_cohort

ROOT = Path(__file__).parents[2]
COHORT = """
[rules]
base = "paper-hyp"
[ecgs]
table = "ecgs.csv"
[diagnoses]
table = "diagnoses.csv"
[follow-up]
end-date = "2024-01-01"
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Twelve patients with an ECG file each, half of them with heart failure a year later."""
    ecgs, diagnoses = ["patient,date,file"], ["patient,date,code,version"]
    for number in range(12):
        noise = np.random.default_rng(number).normal(scale=0.1, size=(1000, 12)).cumsum(axis=0) / 5
        wfdb.wrsamp(
            f"e{number}", fs=100, units=["mV"] * 12, sig_name=list(LEADS), p_signal=noise, fmt=["16"] * 12,
            adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path),
        )  # fmt: skip
        ecgs.append(f"{number},2020-01-01,{tmp_path}/e{number}.hea")
        diagnoses.append(f"{number},2019-01-01,I10,10")
        if number % 2:
            diagnoses.append(f"{number},2021-01-01,I50.0,10")
    (tmp_path / "ecgs.csv").write_text("\n".join(ecgs) + "\n")
    (tmp_path / "diagnoses.csv").write_text("\n".join(diagnoses) + "\n")
    (tmp_path / "cohort.toml").write_text(COHORT)
    assert main(["cohort", "build", str(tmp_path / "cohort.toml"), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_a_built_cohort_is_a_data_set_with_observed_outcomes(built: Path) -> None:
    one, two = (load_own_cohort(built / f"fold-{fold}" / "cohort-files.csv") for fold in (1, 2))
    assert one.outcomes == "observed"
    assert (len(one.cohort), int(one.cohort.event.sum())) == (12, 6)
    assert set(one.cohort.follow_up_days) == {366.0, 1461.0}
    assert {name: int(np.sum(one.cohort.part == name)) for name in ("train", "validation", "test")} == {
        "train": 4, "validation": 2, "test": 6,
    }  # fmt: skip
    assert np.all((one.cohort.part == "test") != (two.cohort.part == "test"))
    recording = one.recordings[3]()
    assert recording.signal_mv.shape[0] == 12
    assert one.source != two.source
    assert load_own_cohort(built / "fold-1" / "cohort-files.csv").source == one.source


def test_what_is_no_such_table_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-621 cohort-files\.csv: found no such file; expected the table that fedecg"
    ):
        load_own_cohort(tmp_path / "smith.csv")
    text = (built / "fold-1" / "cohort-files.csv").read_text()
    for changed, found in (
        (text.replace("died", "dead", 1), "no column died"),
        (text.replace(",366.0,", ",a year,", 1), "cells of follow_up_days that are no numbers"),
        (text + "x\n", "rows of different lengths"),
    ):
        (tmp_path / "t.csv").write_text(changed)
        with pytest.raises(CohortError, match=rf"FECG-622 cohort-files\.csv: found {found}"):
            load_own_cohort(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["paper-hyp", "paper-mi"])
def test_the_papers_grid_is_two_folds_by_five_seeds(name: str) -> None:
    cells = load_grid(ROOT / "configs" / "grids" / f"{name}.toml").cells
    assert len(cells) == 10
    assert {cell.settings.seed for cell in cells} == {42, 2021, 2022, 2023, 2024}
    assert {Path(cell.settings.data.path).parent.name for cell in cells} == {"fold-1", "fold-2"}
