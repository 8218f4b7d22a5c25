"""The paper's recipe end to end, as whoever holds UK Biobank would run it: what the heads of configs/paper-*.toml say.

CardioSoft files and episode tables of synthetic patients -> `fedecg cohort build` -> alignment on PTB-XL -> the study,
then some cells of the grid of 2 folds x 5 seeds. Only the numbers of rounds and steps are smaller.
"""

import csv
import itertools
import json
import shlex
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_paper_recipe import COHORT
from writers_vendor import cardiosoft

import fedecg
from fedecg.cli import main as fedecg_main
from fedecg.signals import SignalStore
from fedecg_simulations.cli import main as simulate_main
from fedecg_simulations.synthetic import make_patients, make_recordings

CONFIGS = Path(__file__).parents[2] / "configs"
PEOPLE, END = 96, date(2022, 10, 31)
PUBLISHED = {"paper-hyp": ("0.6349", "UKB-HYP"), "paper-mi": ("0.5805", "UKB-MI")}
SHORTER = {"align.rounds=300": "align.rounds=1", "align.local-steps=120": "align.local-steps=1"}
SHORT_STUDY = ["survival.rounds=2", "survival.local-steps=1", "evaluation.bootstrap=20"]


class Person(NamedTuple):
    """One participant; `infarction`, `failure`, `died` are days or None."""

    eid: int
    ecg: date
    hypertension: date
    infarction: date | None
    earlier_failure: date | None
    failure: date | None
    died: date | None
    contact: date


def participants() -> list[Person]:
    """The higher a patient's true hazard, the sooner the end; 40 % of them by heart failure. Of the others some die,
    some had heart failure before, or hypertension too late."""
    rank = np.argsort(np.argsort(-make_patients("city", PEOPLE, 3).true_log_hazard))
    people = []
    for number in range(PEOPLE):
        ecg = date(2014, 5, 1) + timedelta(days=11 * number)
        last = ecg + timedelta(days=100 + 25 * int(rank[number]))
        event = bool(rank[number] < 0.4 * PEOPLE)
        people.append(
            Person(
                eid=1_000_000 + number,
                ecg=ecg,
                hypertension=ecg + timedelta(days=30 if number % 8 == 7 else -400),
                infarction=ecg - timedelta(days=200) if number % 2 == 0 else None,
                earlier_failure=ecg - timedelta(days=100) if number % 16 == 3 else None,
                failure=last if event else None,
                died=last if number % 5 == 4 and not event else None,
                contact=last,
            )
        )
    return people


def expected(people: list[Person], base: str) -> dict[str, tuple[int, int, float]]:
    """eid -> event, died, days, by the rules as docs/cohort.md has them, one patient at a time."""
    found = {}
    for one in people:
        reason = one.hypertension if base == "paper-hyp" else one.infarction
        if reason is None or reason > one.ecg or one.earlier_failure is not None:
            continue
        until = min(one.contact, END)
        event = one.failure is not None and one.failure <= until
        died = not event and one.died is not None and one.died <= until
        found[str(one.eid)] = (int(event), int(died), float((until - one.ecg).days))
    return found


def day(one: date) -> str:
    return one.strftime("%d/%m/%Y")


def write_biobank(folder: Path, people: list[Person]) -> None:
    """CardioSoft files (field 20205) and the tables hesin, hesin_diag, death, with an end of contact for everybody."""
    patients = make_patients("city", PEOPLE, 3)
    (folder / "ecg").mkdir()
    for one, signal in zip(people, make_recordings(patients, list(range(PEOPLE))), strict=True):
        counts = np.rint(signal * 1000 / 5).astype(np.int64)
        (folder / "ecg" / f"{one.eid}_20205_2_0.xml").write_bytes(cardiosoft(counts, counts[:, 500:1100]))
    episodes, codes = ["eid\tins_index\tepistart"], ["eid\tins_index\tdiag_icd9\tdiag_icd10"]
    for one in people:
        coded = [
            (one.hypertension, "I10"), (one.infarction, "I219"), (one.earlier_failure, "I500"), (one.failure, "I501"),
        ]  # fmt: skip
        for place, (when, code) in enumerate(coded):
            if when is not None:
                episodes.append(f"{one.eid}\t{place}\t{day(when)}")
                codes.append(f"{one.eid}\t{place}\t\t{code}")
    tables = {
        "hesin.tsv": episodes,
        "hesin_diag.tsv": codes,
        "death.tsv": ["eid\tdate_of_death", *(f"{one.eid}\t{day(one.died)}" for one in people if one.died)],
        "contact.tsv": ["patient\tdate", *(f"{one.eid}\t{day(one.contact)}" for one in people)],
        "people.csv": ["eid,p34,p31", *(f"{one.eid},{1950 + one.eid % 9},{one.eid % 2}" for one in people)],
        "ecgs.csv": [
            "eid,p53_i2,p20205",
            *(f"{one.eid},{day(one.ecg)},{folder}/ecg/{one.eid}_20205_2_0.xml" for one in people),
        ],
    }  # fmt: skip
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def rows_of_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ptbxl_of_500_hz(source: Path, folder: Path) -> Path:
    """As published, but with the rows alone whose files of 500 Hz are at hand."""
    folder.mkdir()
    (folder / "records500").symlink_to(source / "records500")
    (folder / "scp_statements.csv").write_bytes((source / "scp_statements.csv").read_bytes())
    rows = rows_of_table(source / "ptbxl_database.csv")
    rows = [row for row in rows if (source / f"{row['filename_hr']}.hea").exists()]
    with (folder / "ptbxl_database.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def commands(config: Path) -> list[list[str]]:
    """What the head of a configuration says to type, without the explanation beside it."""
    head = config.read_text().partition("\n\n")[0]
    typed = [line.removeprefix("#   ") for line in head.splitlines() if line.startswith("#   ")]
    joined = "\n".join(line.strip().partition("   ")[0] for line in typed).replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines()]


def run(words: list[str], data: Path, more: list[str] | None = None) -> None:
    """Type it, with the folder of PTB-XL in its place and fewer rounds."""
    program = {"fedecg": fedecg_main, "fedecg-simulate": simulate_main}[words[0]]
    typed = [SHORTER.get(word, word).replace("PATH-TO-PTB-XL", str(data)) for word in words[1:]]
    assert program([*typed, *(more or [])]) == 0


@pytest.fixture
def biobank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Person]:
    """The files in the current folder, which holds the package's configs with fewer rounds for the grid's cells."""
    people = participants()
    write_biobank(tmp_path, people)
    for config in (*CONFIGS.glob("paper-*.toml"), *CONFIGS.glob("grids/paper-*.toml")):
        text = (
            config.read_text()
            .replace("rounds = 100 ", "rounds = 1 ")
            .replace("local-steps = 10 ", "local-steps = 1 ")
        )
        target = tmp_path / "configs" / config.relative_to(CONFIGS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("[evaluation]", "[evaluation]\nbootstrap = 20"))
    monkeypatch.chdir(tmp_path)
    return people


def check_cohort(folder: Path, people: list[Person], base: str) -> int:
    """Everybody's outcome, and that the folds' test parts make up the cohort; returns its size."""
    tables = [rows_of_table(folder / f"fold-{fold}" / "cohort-files.csv") for fold in (1, 2)]
    wanted = expected(people, base)
    for rows in tables:
        found = {
            Path(row["file"]).name.partition("_")[0]: (
                int(row["event"]), int(row["died"]), float(row["follow_up_days"]),
            )
            for row in rows
        }  # fmt: skip
        assert found == wanted
    tests = [{row["patient"] for row in rows if row["part"] == "test"} for rows in tables]
    assert not tests[0] & tests[1]
    assert len(tests[0] | tests[1]) == len(wanted)
    flow = json.loads((folder / "flow.json").read_text())
    assert (flow["patients"], flow["cohort"]) == (PEOPLE, len(wanted))
    assert flow["events"] == sum(event for event, _, _ in wanted.values()) > 10
    assert flow["died"] == sum(died for _, died, _ in wanted.values()) > 0
    return len(wanted)


def check_study(folder: Path, base: str, patients: int) -> None:
    """Observed outcomes, the paper's losses, and the paper's figure beside, labelled."""
    figure, cohort = PUBLISHED[base]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["outcomes"], summary["endpoint"]) == (
        "completed",
        "observed",
        "heart failure",
    )
    (site,) = summary["sites"]
    assert site["patients"] == patients
    assert summary["refused-recordings"] == {}
    assert 0 <= summary["columns"]["federated"]["c-index"] <= 1
    rounds = [one for one in json.loads((folder / "rounds.json").read_text()) if one["stage"] == "survival"]
    assert len(rounds) == summary["rounds"]["survival"] > 0
    assert all(np.isfinite(loss) for one in rounds for loss in one["loss"].values())
    report = (folder / "report.html").read_text()
    assert f"Published, other data: C-index {figure} on {cohort} of UK Biobank" in report
    assert "not a target, and no test of this study" in report
    assert "outcomes observed" in report
    for text in (report, (folder / "model" / "model_card.md").read_text()):
        assert "simulated" not in text.lower().replace("fedecg-simulate", "")
    model = fedecg.load(folder / "model")
    assert (model.signals.input, model.signals.samples) == ("median", 608)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "folds", "seeds"),
    [("paper-hyp", ["one"], ["42", "2024"]), ("paper-mi", ["one", "two"], ["2022"])],
)
def test_the_papers_recipe_runs_from_files_to_the_report(
    base: str,
    folds: list[str],
    seeds: list[str],
    biobank: list[Person],
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = base.removeprefix("paper-")
    Path("cohort.toml").write_text(
        COHORT.format(base=base).replace("end-date =", 'end-table = "contact.tsv"\nend-date =')
        + 'follow-up = { patient = "patient", date = "date" }\n'
    )
    ptbxl = ptbxl_of_500_hz(data_root / "ptbxl", Path("ptb-xl"))
    build, align, study = commands(CONFIGS / f"{base}.toml")
    run(build, ptbxl)
    patients = check_cohort(Path("cohorts") / short, biobank, base)
    run(align, ptbxl)
    assert (
        "Published" not in (Path("runs/paper-aligned") / "report.html").read_text()
    )  # of simulated outcomes
    capsys.readouterr()
    run(study, ptbxl, ["--set", *SHORT_STUDY])
    check_study(Path("runs") / f"{base}-fold-1", base, patients)
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"Published, other data: C-index {PUBLISHED[base][0]}" in printed
    stores = [SignalStore.open(one.parent) for one in Path("runs/store").glob("*/store.json")]
    beats = next(one for one in stores if len(one) == patients)
    peaks = np.square(beats.batch(np.arange(patients))).sum(axis=1).argmax(axis=1)
    assert np.median(peaks) == pytest.approx(204, abs=3)  # 4 samples of zeros, then 0.4 s at 500 Hz

    build_again, grid = commands(CONFIGS / "grids" / f"{base}.toml")
    assert build_again == build
    run(grid, ptbxl, ["--only", f"fold={','.join(folds)}", f"seed={','.join(seeds)}"])
    out = Path("runs") / base
    rows = rows_of_table(out / "table.csv")
    assert len(rows) == 10
    done = [row for row in rows if row["status"] == "completed"]
    assert {(row["fold"], row["seed"]) for row in done} == set(itertools.product(folds, seeds))
    assert len(done) == 2
    assert {row["outcomes"] for row in done} == {"observed"}
    told = (out / "summary.md").read_text()
    figure, cohort = PUBLISHED[base]
    assert f"Published, other data: C-index {figure} on {cohort} of UK Biobank" in told
    mean = np.mean([float(row["federated.c-index-stratified"]) for row in done])
    assert f"Mean of the {len(done)} finished cells, folds and seeds alike: C-index {mean:.3f}" in told
