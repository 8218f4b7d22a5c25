"""The paper's recipe as UK Biobank has the data: CardioSoft files, diagnoses by episode, dates day first.

All made here: the ECGs from the synthetic consortium, the tables by hand.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly
from writers_vendor import cardiosoft

from fedecg.cli import main
from fedecg.config import load_study
from fedecg.signals.preprocessing import preprocess
from fedecg_simulations.own_cohort import load_own_cohort
from fedecg_simulations.synthetic import consortium, make_recordings

CONFIGS = Path(__file__).parents[2] / "configs"
COHORT = """
[rules]
base = "{base}"
[ecgs]
table = "ecgs.csv"
people = "people.csv"
[diagnoses]
table = "hesin_diag.tsv"
admissions = "hesin.tsv"
[follow-up]
end-date = "2022-10-31"
death-table = "death.tsv"
[columns]
dates = "day-first"
no-date = ["1900-01-01"]
ecgs = {{ patient = "eid", date = "p53_i2", file = "p20205" }}
diagnoses = {{ patient = "eid", admission = "ins_index", code-9 = "diag_icd9", code-10 = "diag_icd10" }}
admissions = {{ patient = "eid", admission = "ins_index", admitted = "epistart" }}
deaths = {{ patient = "eid", date = "date_of_death" }}
people = {{ patient = "eid", birth-year = "p34", sex = "p31", female = ["0"], male = ["1"] }}
"""


def write_biobank(folder: Path) -> None:
    """Eight people: four with hypertension (of whom one is prevalent), three after infarction, one with neither."""
    (_, patients, _), *_ = consortium({"city": 8}, 8, 0)
    for number, ecg in enumerate(make_recordings(patients, list(range(8)))):
        at_500 = resample_poly(ecg, 500 // patients.rate_hz, 1, axis=1)
        counts = np.rint(at_500 * 1000 / 5).astype(np.int64)
        (folder / f"{number}_20205_2_0.xml").write_bytes(cardiosoft(counts))
    tables = {
        "ecgs.csv": [
            ["eid,p53_i2,p20205"],
            [f"{one},05/06/2016,{folder}/{one}_20205_2_0.xml" for one in range(8)],
        ],
        "people.csv": [["eid,p34,p31"], [f"{one},1950,{one % 2}" for one in range(8)]],
        "hesin.tsv": [
            ["eid\tins_index\tepistart"],
            [f"{one}\t0\t01/02/1996" for one in range(8)],
            ["0\t1\t05/06/2018", "1\t1\t04/06/2016", "4\t1\t06/06/2017", "2\t1\t01/01/1900"],
        ],
        "hesin_diag.tsv": [
            ["eid\tins_index\tdiag_icd9\tdiag_icd10"],
            [
                "0\t0\t4019\t",
                "1\t0\t\tI10",
                "2\t0\t\tI152",
                "3\t0\t\tI119",
                "4\t0\t4109\t",
                "5\t0\t\tI252",
                "6\t0\t\tI219",
            ],
            ["0\t1\t\tI500", "1\t1\t4280\t", "4\t1\t\tI110"],
        ],
        "death.tsv": [["eid\tdate_of_death"], ["3\t05/06/2020", "6\t31/10/2022"]],
    }
    for name, parts in tables.items():
        (folder / name).write_text("\n".join(line for part in parts for line in part) + "\n")


@pytest.mark.parametrize(
    ("base", "follow_up", "events", "died"),
    [
        ("paper-hyp", {"0": 730.0, "2": 2339.0, "3": 1461.0}, {"0"}, {"3"}),
        ("paper-mi", {"4": 366.0, "5": 2339.0, "6": 2339.0}, {"4"}, {"6"}),
    ],
)
def test_biobank_files_become_median_beats_with_outcomes(
    base: str, follow_up: dict[str, float], events: set[str], died: set[str], tmp_path: Path
) -> None:
    write_biobank(tmp_path)
    (tmp_path / "cohort.toml").write_text(COHORT.format(base=base))
    assert main(["cohort", "build", str(tmp_path / "cohort.toml"), "--out", str(tmp_path / "out")]) == 0
    table = tmp_path / "out" / "fold-1" / "cohort-files.csv"
    names = [Path(line.split(",")[0]).name.partition("_")[0] for line in table.read_text().splitlines()[1:]]
    data = load_own_cohort(table)
    assert dict(zip(names, data.cohort.follow_up_days, strict=True)) == follow_up
    assert {name for name, event in zip(names, data.cohort.event, strict=True) if event} == events
    assert {name for name, dead in zip(names, data.cohort.died, strict=True) if dead} == died
    assert set(data.cohort.age_years) == {66.0}
    assert [str(int(one)) for one in data.cohort.female] == [str(1 - int(name) % 2) for name in names]
    signals = load_study(CONFIGS / f"{base}.toml").signals
    for read in data.recordings:
        beat = preprocess(read(), signals, "50")
        assert beat.shape == (12, 608)
        assert np.ptp(beat[1]) > 0.2
