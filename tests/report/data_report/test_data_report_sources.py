"""What the data report can be made of: folders of oddities, stores, a site's own table, texts of any language."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data_reports import document, people, report, rows, text_of

from fedecg.cohort import write_cohort
from fedecg.report.data_languages import report_language
from fedecg.signals import SignalStore


def test_a_folder_of_oddities_is_reported_on(oddities: Path, tmp_path: Path, capfd: Any) -> None:
    assert report(oddities, "--out", tmp_path, "--jobs", "1", "--json") == 0
    printed = capfd.readouterr()
    assert [Path(name).name for name in json.loads(printed.out)["written"]] == [
        "inside.html", "inside.json", "outside.html", "outside.json"
    ]  # fmt: skip
    assert "HYPERLINK" not in printed.err
    inside, outside = document(tmp_path, "inside"), document(tmp_path, "outside")
    refused = rows(inside, "refused", "ecgs")
    assert refused["usable"] >= 29
    assert any(label.startswith("FECG-277") for label in refused)
    assert any(label.startswith("FECG-214") for label in refused)
    assert inside["files-that-are-no-ecgs"] >= 1
    page = (tmp_path / "inside.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\x1b" not in page
    assert len(inside["worst"]) >= 4
    assert page.count('<figure class="paper">') == len(inside["worst"])
    faults = {fault for ecg in inside["worst"] for fault in ecg["faults"]}
    assert any("smaller than hearts make it" in fault for fault in faults)
    assert '<figure class="paper">' not in (tmp_path / "outside.html").read_text()
    assert "worst" not in outside
    assert "Nobody said whose the ECGs are" in text_of(tmp_path / "outside.html")
    assert all(
        name not in (tmp_path / "outside.html").read_text() for name in ("Q0001", "img src=x", "wfdb_odd")
    )


def test_ptbxl_with_its_own_table(data_root: Path, tmp_path: Path, capsys: Any) -> None:
    folder = data_root / "ptbxl"
    table = folder / "ptbxl_database.csv"
    columns = ["patient=patient_id", "age_years=age", "female=sex"]
    arguments = [
        "--table",
        table,
        "--column",
        "filename_lr",
        "--columns",
        *columns,
        "--out",
        tmp_path,
        "--jobs",
        "1",
    ]
    assert report(folder / "records500", *arguments) == 3  # other files: their names end otherwise
    found = r"found --table whose \d+ names are those of none of 40 files; expected names as they stand in SOURCES"
    assert re.search(f"FECG-609 .*{found}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
    assert (
        report(folder / "records100", *arguments) == 0
    )  # names begin above that folder: the last part counts
    assert "--table: 353 of 353 files are in it" in " ".join(capsys.readouterr().err.split())
    assert report(folder, *arguments) == 0
    assert re.search(r"--table: 353 of \d+ files are in it", " ".join(capsys.readouterr().err.split()))
    inside = document(tmp_path, "inside")
    published = pd.read_csv(table)
    (sex,) = [table for table in inside["tables"] if table["name"] == "sex"]
    assert (sex["total"]["patients"], sex["total"]["ecgs"]) == (339, 353)
    first = published.drop_duplicates("patient_id")
    assert rows(inside, "sex")["female"] == int((first["sex"] == 1).sum())
    languages = rows(inside, "languages", "ecgs")
    assert languages["German"] > 150
    assert languages["English"] > 110
    assert languages["Swedish"] > 35
    assert languages["not told"] < 10


def test_sex_may_stand_in_words(site: Path, tmp_path: Path) -> None:
    sources = SignalStore.open(site / "store").facts["source"]
    words = ["F", "female", "m", "Male", "1", "0", "?", ""] * 10
    lines = [f"{source},p{at},{word}" for at, (source, word) in enumerate(zip(sources, words, strict=False))]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient,sex", *lines]))
    words = ["--table", tmp_path / "t.csv", "--columns", "female=sex", "--out", tmp_path / "out"]
    assert report(site / "store", *words) == 0
    assert rows(document(tmp_path / "out", "inside"), "sex") == {"female": 30, "male": 30, "missing": 20}


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_ecgs_outside_the_cohort_are_of_the_tables_people_and_outside_of_nobody_else(
    site: Path, tmp_path: Path, sign: str
) -> None:
    """100 ECGs of the cohort; 60 more of its people, 40 of 20 others, 40 of whom nobody says."""
    write_cohort(people().select(np.arange(100)), tmp_path / "cohort.csv")
    sources = SignalStore.open(site / "store").facts["source"]
    whose = [*range(100), *range(60), *(200 + at // 2 for at in range(40))]
    lines = [f"{source}{sign}p{number}" for source, number in zip(sources, whose, strict=False)]
    (tmp_path / "t.csv").write_text("\n".join([f"file{sign}patient", *lines]))
    words = ["--cohort", tmp_path / "cohort.csv", "--table", tmp_path / "t.csv", "--out", tmp_path]
    assert report(site / "store", *words) == 0
    inside, outside = document(tmp_path, "inside"), document(tmp_path, "outside")
    assert rows(inside, "refused", "ecgs")["usable"] == 240
    assert rows(inside, "refused")["usable"] == 100 + 20 + 40
    assert (rows(outside, "refused", "ecgs")["usable"], rows(outside, "refused")["usable"]) == (200, 120)
    assert rows(inside, "ecgs")["2"] == 60
    assert sum(rows(inside, "sex", "ecgs").values()) == 160
    for version, words in (
        ("inside", "240 ECGs; 100 patients in the cohort, 34 with"),
        ("outside", "200 ECGs; 100 "),
    ):
        page = text_of(tmp_path / f"{version}.html")
        assert words in page
        assert page.count('The columns "ECGs" count all ECGs that are known to be theirs, not the index') == 2
    assert set(inside["differences"]) == set(outside["differences"])
    assert any("do not count there" in line for line in outside["differences"])


def test_a_store_without_a_cohort_is_reported_on(site: Path, tmp_path: Path) -> None:
    assert report(site / "store", "--out", tmp_path) == 0
    inside = document(tmp_path, "inside")
    assert rows(inside, "refused", "ecgs") == {"usable": 240}
    assert "sex" not in {table["name"] for table in inside["tables"]}
    assert inside["settings"] == SignalStore.open(site / "store").settings
    assert inside["files-that-are-no-ecgs"] is None  # refused.csv of the store names them
    assert "in the cohort" not in text_of(tmp_path / "inside.html")


def test_a_table_of_which_everything_is_withheld_has_no_empty_picture(
    data_root: Path, tmp_path: Path
) -> None:
    """One ECG of 41 is cut short: with it every band of duration is withheld, and a picture would show nothing."""
    ecgs = tmp_path / "ecgs"
    ecgs.mkdir()
    for name in sorted((data_root / "ptbxl" / "records100").rglob("*.hea"))[:41]:
        shutil.copy(name, ecgs)
        (ecgs / f"{name.stem}.dat").write_bytes(name.with_suffix(".dat").read_bytes())
    next(ecgs.glob("*.dat")).write_bytes(bytes(100))
    assert report(ecgs, "--out", tmp_path, "--jobs", "1") == 0
    assert set(rows(document(tmp_path, "outside"), "durations", "ecgs").values()) == {"withheld"}
    assert pictures(tmp_path / "inside.html") == ["durations", "amplitudes"]
    assert "durations" not in pictures(tmp_path / "outside.html")


def pictures(page: Path) -> list[str]:
    return re.findall(r'download="(\w+)\.csv"', page.read_text())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sinus rhythm with first degree AV block", "English"),
        ("Sinusrhythmus, überdrehter Linkstyp, kein Hinweis auf Infarkt", "German"),
        ("sinusrytm, ospecifika T-vågsförändringar och vänster grenblock", "Swedish"),
        ("Ritmo sinusal, bloqueo de rama derecha", "Spanish"),
        ("Ritmo sinusal, bloqueio do ramo direito", "Portuguese"),
        ("Rythme sinusal, bloc de branche droit, axe gauche", "French"),
        ("Sinusritme, linker bundeltakblok, geen afwijkingen", "Dutch"),
        ("Ritmo sinusale, blocco di branca destra", "Italian"),
        ("  12-03 ", "no text"),
        ("QRS 120 ms", "not told"),
    ],
)
def test_languages_are_told_by_their_words(text: str, language: str) -> None:
    assert report_language(text) == language
