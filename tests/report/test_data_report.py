"""The data report of a site, a store and a folder: right numbers inside, nothing of anybody outside."""

import csv
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from fedecg.cli import main
from fedecg.cohort import Cohort, write_cohort
from fedecg.report.data_languages import report_language
from fedecg.signals import LEADS, SignalStore

PATIENTS = 240


def report(*arguments: object) -> int:
    return main(["data", "report", *map(str, arguments)])


def document(folder: Path, version: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"{version}.json").read_text())
    return read


def rows(doc: dict[str, Any], name: str, number: str = "patients") -> dict[str, Any]:
    (table,) = [table for table in doc["tables"] if table["name"] == name]
    return {row["label"]: row[number] for row in table["rows"]}


def text_of(page: Path) -> str:
    bare = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.read_text(), flags=re.S)
    return " ".join(unescape(bare).split())


def people() -> Cohort:
    """240 patients, 80 with an event; three ages missing, three patients of an unusual sort each."""
    rng = np.random.default_rng(1)
    event = np.arange(PATIENTS) % 3 == 0
    age = rng.uniform(45, 85, PATIENTS)
    age[:3], age[3:6] = np.nan, 101.0
    codes = tuple(
        {"NORM": 100.0} if at % 2 else {"LVH": 100.0, "XRARE" if at == 4 else "SR": 0.0}
        for at in range(PATIENTS)
    )
    return Cohort(
        record=np.arange(PATIENTS),
        patient=np.arange(PATIENTS) + 7000,
        part=np.where(np.arange(PATIENTS) % 5 == 0, "test", "train"),
        event=event,
        follow_up_days=rng.uniform(30, 3650, PATIENTS),
        entry_days=np.zeros(PATIENTS),
        died=(np.arange(PATIENTS) % 7 == 1) & ~event,
        age_years=age,
        female=(np.arange(PATIENTS) % 2).astype(np.float64),
        codes=codes,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A site folder: a store of real ECGs and a table of made-up people."""
    folder = tmp_path_factory.mktemp("site")
    names = sorted((data_root / "ptbxl" / "records100").rglob("*.hea"))[:PATIENTS]
    (folder / "list.txt").write_text("\n".join(map(str, names)))
    arguments = ["data", "ingest", str(folder / "list.txt"), "--out", str(folder / "store"), "--jobs", "1"]
    assert main(arguments) == 0
    write_cohort(people(), folder / "cohort.csv")
    (folder / "site.toml").write_text('name = "city"\nstore = "store"\ncohort = "cohort.csv"\n')
    with (folder / "devices.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "device", "report"])
        texts = (
            "Sinusrhythmus, Lagetyp normal",
            "sinus rhythm with left axis",
            "sinusrytm, ospecifik förändring",
            "",
        )
        for at, name in enumerate(names):
            writer.writerow(
                [name.with_suffix(""), "AT-6" if at > 2 else "<script>alert(1)</script>", texts[at % 4]]
            )
    return folder


@pytest.fixture(scope="module")
def looked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("look")
    assert report(site, "--table", site / "devices.csv", "--out", out) == 0
    return out


def test_inside_counts_everybody(looked: Path) -> None:
    inside, cohort = document(looked, "inside"), people()
    assert rows(inside, "sex") == {"female": 120, "male": 120}
    assert rows(inside, "parts") == {"train": 192, "test": 48}
    assert rows(inside, "parts", "events")["test"] == int(cohort.event[cohort.part == "test"].sum())
    ages = rows(inside, "age")
    assert (ages["missing"], ages["90 years and more"]) == (3, 3)
    assert list(rows(inside, "follow-up"))[:2] == ["below 1 year", "1 to below 2 years"]
    assert ages["60 to below 70 years"] == int(np.sum((cohort.age_years >= 60) & (cohort.age_years < 70)))
    assert rows(inside, "ends") == {
        "event": 80, "death before it": int(cohort.died.sum()), "censored": 160 - int(cohort.died.sum())
    }  # fmt: skip
    assert rows(inside, "codes") == {"NORM": 120, "LVH": 120, "SR": 119, "XRARE (not in the bank)": 1}
    assert rows(inside, "coverage") == {
        "a statement that the bank has": 240, "statements, and none that the bank has": 0, "no statement": 0
    }  # fmt: skip
    assert rows(inside, "languages") == {"German": 60, "English": 60, "Swedish": 60, "no text": 60}
    assert rows(inside, "rates") == {"100 Hz": 240}
    assert rows(inside, "devices") == {"AT-6": 237, "<script>alert(1)</script>": 3}


def test_survival_is_kaplan_meiers(looked: Path) -> None:
    cohort = people()
    times, survival = kaplan_meier_estimator(cohort.event, cohort.follow_up_days)
    for point in document(looked, "inside")["survival"]:
        days = point["years"] * 365.25
        assert point["survival"] == pytest.approx(
            survival[times <= days][-1] if np.any(times <= days) else 1.0
        )
        assert point["at-risk"] == int(np.sum(cohort.follow_up_days >= days))


def test_outside_has_no_small_number_and_nothing_that_names_anybody(looked: Path, site: Path) -> None:
    outside = document(looked, "outside")
    numbers = [
        cell
        for table in outside["tables"]
        for row in (*table["rows"], table["total"])
        for cell in row.values()
    ]
    counted = [row["patients"] for table in outside["tables"] for row in (*table["rows"], table["total"])]
    assert all(cell == 0 or cell >= 10 for cell in counted if isinstance(cell, int))
    assert all(cell % 5 == 0 for cell in numbers if isinstance(cell, int))
    assert "withheld" in numbers
    assert rows(outside, "age")["missing"] == rows(outside, "age")["90 years and more"] == "withheld"
    assert outside["thresholds"] == {"patients": 10, "events": 5}
    both = text_of(looked / "outside.html") + (looked / "outside.json").read_text()
    for secret in ("XRARE", "script", "records100", "_lr", "7004", str(site)):
        assert secret not in both
    assert not {"quantiles", "worst", "settings", "files-that-are-no-ecgs"} & set(outside)
    assert "data:image/svg+xml" in (looked / "outside.html").read_text()


def test_the_same_numbers_stand_in_page_and_document(looked: Path) -> None:
    for version in ("inside", "outside"):
        text = text_of(looked / f"{version}.html")
        for table in document(looked, version)["tables"]:
            for row in table["rows"][:5]:
                if row["ecgs"] != 0:
                    assert f"{row['label']} {row['ecgs']}" in text


def test_both_versions_state_how_they_differ(looked: Path) -> None:
    inside, outside = (document(looked, version)["differences"] for version in ("inside", "outside"))
    assert sorted(inside) == sorted(outside)
    assert any("names of refused files and of the worst ECGs, which are drawn" in line for line in inside)
    assert any("a number below 10 patients or 5 events is not shown" in line for line in inside)
    for version, lines in (("inside", inside), ("outside", outside)):
        for line in lines:
            assert line in text_of(looked / f"{version}.html")
    assert "it does not leave the site" in text_of(looked / "inside.html")
    assert "Read it before it leaves the site" in text_of(looked / "outside.html")


def test_pages_load_nothing_run_nothing_and_are_the_same_twice(
    looked: Path, site: Path, tmp_path: Path
) -> None:
    assert report(site, "--table", site / "devices.csv", "--out", tmp_path) == 0
    for name in ("inside.html", "outside.html", "inside.json", "outside.json"):
        assert (tmp_path / name).read_bytes() == (looked / name).read_bytes()
    page = (looked / "inside.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}


@pytest.fixture(scope="module")
def oddities(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A folder with whatever a hospital has lying about."""
    folder = tmp_path_factory.mktemp("odd") / "ecgs"
    folder.mkdir()
    for name in ("cinc2020", "wfdb_odd"):
        shutil.copytree(data_root / name, folder / name)
    marked = pd.read_csv(data_root / "code15_wfdb" / "labels.csv")
    marked = marked[marked["note"].notna()]
    assert len(marked) >= 2
    for name in marked["record"]:
        for ending in (".hea", ".dat"):
            place = folder / "code15_wfdb" / f"{Path(name).name}{ending}"
            place.parent.mkdir(exist_ok=True)
            source = data_root / "code15_wfdb" / f"{name}{ending}"
            if source.exists():
                shutil.copy(source, place)
    hostile = folder / "<img src=x onerror=alert(1)>"
    hostile.mkdir()
    for ending in (".hea", ".dat"):
        shutil.copy(
            next((data_root / "ptbxl" / "records100").rglob(f"00001_lr{ending}")),
            hostile / f"00001_lr{ending}",
        )
    (hostile / '=HYPERLINK("x")\x1b[31m.npz').write_bytes(b"PK\x03\x04 broken")
    np.savez(
        hostile / "nan.npz",
        signal=np.full((12, 5000), np.nan),
        rate_hz=500.0,
        unit="mV",
        leads=np.array(LEADS),
    )
    return folder


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


WRONG = {
    "an empty folder": ([], "FECG-609 data to report on: found neither site.toml nor store.json nor files"),
    "a cohort of a folder": (
        ["--cohort", "x.csv"],
        "FECG-609 .* found --cohort with a folder that is no store",
    ),
    "a table that is not there": (["--table", "x.csv"], r"FECG-609 .* found --table: no such file"),
    "a low threshold": (["--patients", "1"], "FECG-610 --patients, --events: found 1 and 5"),
    "no threshold": (
        ["--events", "few"],
        "FECG-610 --patients, --events: found no whole number; expected whole",
    ),
    "no processes": (["--jobs", "0"], "FECG-103 --jobs: found 0; expected 1 to 64 processes"),
    "processes that are no number": (
        ["--jobs", "x"],
        "FECG-103 --jobs: found no whole number; expected 1 to 64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_told(tmp_path: Path, capsys: Any, name: str) -> None:
    options, message = WRONG[name]
    assert report(tmp_path, "--out", tmp_path / "out", *options) == 3
    assert re.search(message, capsys.readouterr().err)


def test_a_table_without_the_columns_and_a_cohort_of_another_store_are_told(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    table = site / "devices.csv"
    assert report(site, "--out", tmp_path, "--table", table, "--columns", "patient=mrn") == 3
    assert "FECG-609 data to report on: found --table without 1 of the columns" in capsys.readouterr().err
    cohort = people()
    moved = Cohort(**{**vars(cohort), "record": cohort.record + 1})
    write_cohort(moved, tmp_path / "moved.csv")
    assert report(site / "store", "--cohort", tmp_path / "moved.csv", "--out", tmp_path) == 3
    assert "found 1 rows of the cohort table that the store does not have" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        report(site, "--out", tmp_path, "--table", table, "--columns", "colour=red")
    assert "--columns: expected NAME=COLUMN with a NAME of patient, device" in capsys.readouterr().err


def test_data_that_are_not_there_are_refused_and_nothing_is_written(tmp_path: Path, capsys: Any) -> None:
    assert report(tmp_path / "nope", "--out", tmp_path / "out") == 3
    found = "neither site.toml nor store.json nor files (1 of 1 names of nothing that is there)"
    assert f"FECG-609 data to report on: found {found}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        report("", "--out", tmp_path / "out")
    assert "argument DATA: expected a name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_to_look_there_is_bad_input(tmp_path: Path, capsys: Any) -> None:
    assert report(tmp_path / ("x" * 300), "--out", tmp_path / "out") == 3
    assert (
        "FECG-609 data to report on: found file name too long; expected a site folder"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "65"], ["FECG-103 --jobs: found 65; expected 1 to 64 processes"]),
        (["--jobs", "1.5"], ["FECG-103 --jobs: found no whole number"]),
        (
            ["--rate-hz", "fast", "--samples", "9"],
            ["found 2 problem(s)", "rate-hz: Input should be", "samples: Input"],
        ),
    ],
    ids=["too many", "a half", "signals"],
)
def test_options_of_ingest_that_cannot_be_are_told_with_a_code_before_anything_is_read(
    tmp_path: Path, capsys: Any, options: list[str], words: list[str]
) -> None:
    assert main(["data", "ingest", str(tmp_path), "--out", str(tmp_path / "store"), *options]) == 3
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not list(tmp_path.iterdir())


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
    assert set(inside["differences"]) == set(outside["differences"])
    assert any("do not count there" in line for line in outside["differences"])


def test_a_store_without_a_cohort_is_reported_on(site: Path, tmp_path: Path) -> None:
    assert report(site / "store", "--out", tmp_path) == 0
    inside = document(tmp_path, "inside")
    assert rows(inside, "refused", "ecgs") == {"usable": 240}
    assert "sex" not in {table["name"] for table in inside["tables"]}
    assert inside["settings"] == SignalStore.open(site / "store").settings


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


PROBE = """<script>addEventListener("load", () => parent.postMessage({
  inner: innerWidth, scroll: document.documentElement.scrollWidth, images: document.images.length,
  broken: [...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).length,
  wide: [...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll")
    && element.getBoundingClientRect().right > innerWidth + 1).length
}, "*"));</script>"""
FRAME = """<!doctype html><title>waiting</title><iframe src="probe.html" width="{width}" height="2000"
style="border:0"></iframe><script>addEventListener("message", event => document.title =
JSON.stringify(event.data));</script>"""
BROWSER = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")
@pytest.mark.parametrize("version", ["inside", "outside"])
def test_nothing_sticks_out_on_a_phone_a_screen_or_paper(
    oddities: Path, tmp_path: Path, version: str
) -> None:
    assert report(oddities, "--out", tmp_path, "--jobs", "1") == 0
    text = (tmp_path / f"{version}.html").read_text()
    bare = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text
    )  # else the probe would not run
    (tmp_path / "probe.html").write_text(bare.replace("</body>", f"{PROBE}</body>"))
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    for width in (390, 1280):
        (tmp_path / "frame.html").write_text(FRAME.format(width=width))
        waiting = ["--window-size=1400,2000", "--virtual-time-budget=5000", "--dump-dom"]
        done = subprocess.run(
            [*command, *waiting, (tmp_path / "frame.html").as_uri()],
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(unescape(re.findall(r"<title>(.*?)</title>", done.stdout)[0]))
        assert (told["inner"], told["wide"], told["broken"]) == (width, 0, 0)
        assert told["scroll"] <= width
        assert told["images"] >= (6 if version == "inside" else 2)
    paper = tmp_path / "paper.pdf"
    subprocess.run(
        [
            *command,
            "--no-pdf-header-footer",
            f"--print-to-pdf={paper}",
            (tmp_path / f"{version}.html").as_uri(),
        ],
        capture_output=True,
        check=True,
    )
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", paper.read_bytes())
    assert 3 <= len(boxes) <= 14
    for box in boxes:
        assert (float(box[0]), float(box[1])) == pytest.approx((595, 842), abs=1.5)
