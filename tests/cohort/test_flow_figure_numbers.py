"""The picture of a flow says what its table says: read back glyph by glyph from the SVG, for two hospitals."""

import json
import re
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import pytest
from cohort_hospital import write_hospital
from matplotlib.ft2font import FT2Font
from test_cohort_mimic import COHORT, DATA

from fedecg.cli import main

SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
Row = tuple[str, str, str]  # words, who left, who remains


@lru_cache
def letters(font: str) -> dict[int, str]:
    """Number of a glyph -> letter, of a font that comes with matplotlib."""
    charmap = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")).get_charmap()
    return {glyph: chr(code) for code, glyph in sorted(charmap.items(), reverse=True)}


def letter(glyph: ElementTree.Element) -> str:
    font, _, number = glyph.get(HREF, "").removeprefix("#").rpartition("-")
    return letters(font)[int(number, 16)]


def drawn(path: Path) -> list[str]:
    """Every text of the picture, from the glyphs that are drawn: each is a path with the name of font and glyph."""
    texts = []
    for group in ElementTree.parse(path).iter(f"{SVG}g"):
        if not group.get("id", "").startswith("text_"):
            continue
        lines = [
            "".join(letter(glyph) for glyph in line.iter(f"{SVG}use")) for line in group.findall(f"{SVG}g")
        ]
        texts.append(" ".join(" ".join(lines).split()))
    return texts


def table(printed: str) -> tuple[list[Row], list[str]]:
    """Rows of the table of the flow as it is printed, and the lines below it."""
    head, *lines = printed.splitlines()
    assert head.split() == ["left", "remain"]
    where = head.index("left") + len("left")
    rows = []
    for number, line in enumerate(lines):
        if line.startswith("median"):
            return rows, lines[number:]
        words, left = re.fullmatch(r"(.*?)(?:  +(\d+))?", line[:where].rstrip()).groups()
        rows.append((words.strip().removeprefix("- "), left or "", line[where:].strip()))
    raise AssertionError("no median")


def said(rows: list[Row], below: list[str]) -> set[str]:
    """What the picture must say of the table, and nothing else."""
    start, *steps = rows
    cohort = next(number for number, row in enumerate(steps) if row[0] == "cohort")
    ecgs = re.search(r"\((\d+) ECGs\)", start[0]).group(1)
    words = {f"Patients with an ECG: {start[2]} ({ecgs} ECGs)", "Flow of patients"}
    words |= {f"{left} left: {text}" for text, left, _ in steps[:cohort]}
    words |= {f"{remain} remain" for _, left, remain in steps[: cohort - 1] if left != "0"}
    median = below[0].removeprefix("median follow-up ")
    words |= {f"Cohort: {steps[cohort][2]} patients median follow-up {median}"}
    words |= {f"{text}: {number}" for text, _, number in steps[cohort + 1 :]}
    parts = [line.split() for line in below[3:]]
    if parts[0][0] == "fold":
        return words | {f"Test parts: {max(int(part[1]) for part in parts)} folds."}
    counted = ", ".join(f"{name} {patients} (events: {events})" for name, patients, events in parts)
    return words | {f"Parts: {counted}."}


@pytest.fixture(params=["hospital", "mimic-hyp", "mimic-mi"])
def built(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[Path, str]:
    """The folder of a cohort, and the table that the build printed."""
    if request.param == "hospital":
        write_hospital(tmp_path)
    else:
        if not DATA.is_dir():
            pytest.skip("needs the MIMIC-IV clinical demo (FEDECG_TEST_DATA)")
        admissions = (
            pd.read_csv(DATA / "admissions.csv").sort_values("admittime").groupby("subject_id").head(1)
        )
        ecgs = admissions[["subject_id", "admittime", "hadm_id"]]
        ecgs.to_csv(tmp_path / "ecgs.csv", index=False, header=["patient", "date", "file"])
        settings = COHORT.format(base=f"paper-{request.param[6:]}", data=DATA)
        settings = settings.replace("ecgs.parquet", "ecgs.csv").replace(
            "diagnoses.csv.gz", f"{DATA}/diagnoses_icd.csv"
        )
        (tmp_path / "cohort.toml").write_text(settings)
    out = tmp_path / "out"
    assert main(["cohort", "build", str(tmp_path / "cohort.toml"), "--out", str(out)]) == 0
    return out, capsys.readouterr().out


def test_the_picture_says_the_numbers_of_the_table_and_no_others(built: tuple[Path, str]) -> None:
    folder, printed = built
    rows, below = table(printed)
    assert set(drawn(folder / "flow.svg")) - {""} == said(rows, below)
    flow = json.loads((folder / "flow.json").read_text())
    assert [(left, remain) for _, left, remain in rows[1 : 1 + len(flow["steps"])]] == [
        (str(step["left"]), str(step["remaining"])) for step in flow["steps"]
    ]
    numbers = [flow[name] for name in ("patients", "cohort", "events", "died", "censored")]
    assert [rows[0][2], *(row[2] for row in rows[-4:])] == [str(number) for number in numbers]
    assert len(rows) == len(flow["steps"]) + 5


def test_the_picture_for_outside_says_the_words_for_small_numbers(
    built: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = built
    figure = folder / "shown.svg"
    assert main(["cohort", "flow", str(folder / "flow.json"), "--outside", "--figure", str(figure)]) == 0
    capsys.readouterr()
    shown = json.loads((folder / "outside" / "flow.json").read_text())
    texts = drawn(figure)
    assert f"Patients with an ECG: {shown['patients']} ({shown['ecgs']} ECGs)" in texts
    for step in shown["steps"]:
        reasons = step["text"].split("; ")
        joined = " ".join(f"– {reason}" for reason in reasons)
        one, several = f"{step['left']} left: {reasons[0]}", f"{step['left']} left for any of: {joined}"
        assert (one if len(reasons) == 1 else several) in texts
    for key, words in (("events", "heart failure"), ("died", "died without heart failure")):
        assert f"{words}: {shown[key]}" in texts
    inside = json.loads((folder / "flow.json").read_text())
    hidden = {inside[key] for key in ("events", "died", "censored") if shown[key] != inside[key]}
    numbers = {int(word) for text in texts for word in re.findall(r"\d+", text) if "fewer than" not in text}
    assert hidden
    assert not (hidden - {inside["cohort"]}) & (numbers - {shown[key] for key in ("ecgs", "patients")})
