"""`fedecg cohort`: help that teaches, files, notes, exit statuses; nothing names a patient."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cohort_hospital import HOSPITAL, SETTINGS, tables, write_hospital

from fedecg.cli import main
from fedecg.cohort.build import build_cohort
from fedecg.cohort.build_settings import load_cohort_settings
from fedecg.cohort.commands import BUILD_HELP
from fedecg.cohort.flow import read_flow
from fedecg.errors import CohortError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    assert main(["cohort", "build", str(write_hospital(folder)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_help_teaches_without_loading_what_works() -> None:
    script = (
        "import sys, fedecg.cli as cli\n"
        "for words in ('build', 'flow', 'codes'):\n"
        "    try: cli.main(['cohort', words, '--help'])\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "heavy = {'torch', 'flwr', 'scipy', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "fedecg cohort build cohort.toml --out cohort",
        "fedecg cohort flow cohort/flow.json",
        "I10-I15",
    ):
        assert words in done.stdout


def test_the_example_in_the_help_is_a_cohort_file(tmp_path: Path) -> None:
    lines = BUILD_HELP.split("the rules:\n", 1)[1].split("\n  fedecg cohort build", 1)[0]
    file = tmp_path / "cohort.toml"
    file.write_text("\n".join(line.removeprefix("  ") for line in lines.splitlines()))
    settings = load_cohort_settings(file)
    assert settings.columns.diagnoses.code == "icd_code"
    assert settings.split.test == 0.2
    assert settings.follow_up.end_date == "2024-06-30"


def test_the_example_in_the_documentation_is_a_cohort_file(tmp_path: Path) -> None:
    """A store, no folds since it asks for a test part; what the base says of the rest."""
    text = (Path(__file__).parents[2] / "docs/cohort.md").read_text()
    file = tmp_path / "cohort.toml"
    file.write_text(text.split("## A whole file\n\n```toml\n", 1)[1].split("```", 1)[0])
    settings = load_cohort_settings(file)
    assert Path(settings.ecgs.store) == tmp_path / "store"
    assert (settings.split.folds, settings.split.test) == (0, 0.2)
    assert settings.include.lists == ["hypertension"]
    file.write_text(file.read_text().replace("[split]\ntest = 0.2\n", ""))
    assert load_cohort_settings(file).split.folds == 2


def test_without_a_store_the_table_is_one_that_evaluate_takes(built: Path) -> None:
    with (built / "cohort-files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    by_file = {row["file"]: row for row in rows}
    assert by_file["p11"] | {"part": ""} == {
        "file": "p11", "patient": by_file["p11"]["patient"], "part": "", "event": "0", "follow_up_days": "297.0",
        "entry_days": "0.0", "died": "1", "age_years": "60.0", "female": "1.0",
        "codes": "",
    }  # fmt: skip
    assert by_file["p30"]["age_years"] == ""
    assert {row["part"] for row in rows} == {"train", "validation", "test"}
    assert len({int(row["patient"]) for row in rows}) == 15


def test_a_table_that_is_built_again_gives_everybody_the_same_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the privacy ledger would take one patient for another."""

    def numbers(out: Path, *changes: tuple[str, str]) -> dict[str, str]:
        rules = write_hospital(tmp_path)
        for old, new in changes:
            assert old in rules.read_text()
            rules.write_text(rules.read_text().replace(old, new))
        assert main(["cohort", "build", str(rules), "--out", str(out)]) == 0
        with (out / "cohort-files.csv").open(newline="") as file:
            return {row["file"]: row["patient"] for row in csv.DictReader(file)}

    first = numbers(tmp_path / "out")
    assert (tmp_path / "out/patients.key").stat().st_mode & 0o777 == 0o600
    again = numbers(tmp_path / "out", ("[split]", "[split]\nseed = 9"))
    assert list(again) != list(first)  # another order of the rows
    assert again == first
    assert not set(numbers(tmp_path / "other").values()) & set(first.values())  # another key


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "0 bytes"), (b"x" * 31, "31 bytes"), (None, "a folder")]
)
def test_a_key_that_is_none_is_refused_before_anything_is_written(
    content: bytes | None, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "out/patients.key"
    key.parent.mkdir()
    key.mkdir() if content is None else key.write_bytes(content)
    assert main(["cohort", "build", str(write_hospital(tmp_path)), "--out", str(tmp_path / "out")]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert f"FECG-286 patients.key, the key of the patients' numbers: found {found}" in told
    assert "Restore it from a backup" in told
    assert [file.name for file in key.parent.iterdir()] == ["patients.key"]


def test_the_flow_is_printed_and_the_faults_are_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", "build", str(write_hospital(tmp_path)), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    for line in (
        "patients with an ECG (33 ECGs)",
        "  - heart failure on the day of the ECG",
        "    died without heart failure",
        "median follow-up 448 days",
    ):
        assert line in told.out
    errors = " ".join(told.err.split())
    assert "left out for FECG-287 dates of ECGs: 1 of 33 cells unreadable" in errors
    assert "left out for FECG-290 table of deaths: 1 patients with two days of death" in errors
    assert not any(f"p{number:02}" in told.out.replace("p06", "") for number in range(1, 31))


def test_how_far_it_is_is_said_in_percent_of_the_tables_and_ends_at_a_hundred(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    build_cohort(
        load_cohort_settings(write_hospital(tmp_path)), lambda done, note="": told.append((done, note))
    )
    percent = [done for done, _ in told]
    assert percent == sorted(percent)
    assert (percent[-1], told[-1][1]) == (100, "")
    assert max(done for done, note in told if note.endswith(" read")) == 33
    assert [note for _, note in told if note.endswith(" checked")][:2] == [
        "ECGs checked",
        "diagnoses checked",
    ]
    assert percent.count(100) == 1


def test_a_part_that_a_small_cohort_leaves_without_anybody_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tables([one for one in HOSPITAL if one.name in ("p01", "p02", "p06")])
    rules = write_hospital(tmp_path, SETTINGS.replace("test = 0.25", "test = 0.4\nvalidation = 0.1"), few)
    build = ["cohort", "build", str(rules), "--out", str(tmp_path / "out")]
    assert main(build) == 0
    empty = "the part validation has no patient: the cohort is too small for its share"
    assert f"warning: {empty}" in " ".join(capsys.readouterr().err.split())
    assert empty in json.loads((tmp_path / "out/flow.json").read_text())["notes"]
    rules.write_text(rules.read_text().replace("validation = 0.1", "validation = 0.0"))
    assert main(build) == 0
    assert "has no patient" not in capsys.readouterr().err  # none was asked for


def test_json_is_the_flow_and_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS.replace("test = 0.25", "folds = 2")
    words = [
        "cohort",
        "build",
        str(write_hospital(tmp_path, settings)),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["cohort"]) == ("fedecg-cohort-flow", 15)
    written = {str(Path(name).relative_to(tmp_path / "out")) for name in told["written"]}
    assert written == {
        "fold-1/cohort-files.csv", "fold-2/cohort-files.csv", "flow.json", "flow.pdf", "flow.svg", "outside/flow.json",
        "outside/flow.pdf",
    }  # fmt: skip
    assert all(Path(name).stat().st_size for name in told["written"])


def test_flow_prints_again_what_build_printed(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = str(built / "flow.json")
    assert main(["cohort", "flow", flow, "--figure", str(tmp_path / "f.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((built / "flow.json").read_text())
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert main(["cohort", "flow", flow, "--outside"]) == 0
    assert "fewer than 10" in capsys.readouterr().out
    assert main(["cohort", "flow", flow, "--outside", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((built / "outside" / "flow.json").read_text())


def test_a_flow_that_does_not_add_up_is_none(built: Path, tmp_path: Path) -> None:
    tree = json.loads((built / "flow.json").read_text())
    for change in (
        {"cohort": 16},
        {"schema": "other"},
        {"events": 9},
        {"steps": tree["steps"][1:]},
        {"more": 1},
    ):
        (tmp_path / "flow.json").write_text(json.dumps(tree | change))
        with pytest.raises(
            CohortError, match=r"FECG-286 flow of a cohort: found another document; expected the flow\.json"
        ):
            read_flow(tmp_path / "flow.json")
    (tmp_path / "flow.json").write_text("{")
    with pytest.raises(CohortError, match="found text that is not JSON"):
        read_flow(tmp_path / "flow.json")


def test_codes_prints_lists_with_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cohort", "codes", "hypertension"]) == 0
    told = capsys.readouterr().out
    assert "ICD-10: I10-I15" in told
    assert "source: ICD-10 I10-I15, hypertensive diseases" in told
    assert main(["cohort", "codes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "heart-failure"


@pytest.mark.parametrize(
    "words", [["codes", "cancer"], ["flow", "f.json", "--figure", "f.gif"], ["build"]], ids=" ".join
)
def test_wrong_use_of_cohort_is_exit_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["cohort", *words])
    assert done.value.code == 2
    assert "expected" in capsys.readouterr().err or words == ["build"]


@pytest.mark.parametrize(
    ("place", "found"), [("taken", "a file"), ("taken/out", "a path that leads through a file")]
)
def test_a_folder_that_cannot_be_written_is_told_before_the_tables_are_read(
    place: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    for words in (["cohort", "build", str(write_hospital(tmp_path))], ["data", "report", str(tmp_path)]):
        assert main([*words, "--out", str(tmp_path / place)]) == 3
        assert capsys.readouterr().err == (
            f"FECG-601 folder to write: found {found}; expected a new one, or one that can be written. "
            "Choose another --out.\n"
        )


@pytest.mark.parametrize(
    "words", [["cohort", "build", "cohort.toml"], ["data", "report", "store"], ["data", "ingest", "ecgs"]]
)
def test_an_empty_name_is_not_the_current_folder(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hospital(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as done:
        main([*words, "--out", ""])
    assert done.value.code == 2
    assert "argument --out: expected a name" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_bad_input_is_exit_status_3_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_hospital(tmp_path, SETTINGS.replace("leave-out", "stop"))
    assert main(["cohort", "build", str(file), "--out", str(tmp_path / "out")]) == 3
    assert "FECG-293" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    made = tables(HOSPITAL)
    made["diagnoses.csv"][0] = ("patient", "date", "icd", "version")
    made["deaths.csv"][0] = ("pid", "date")
    assert main(["cohort", "build", str(write_hospital(tmp_path, SETTINGS, made))]) == 3
    told = capsys.readouterr().err
    assert "FECG-286 table of diagnoses: found no column code" in told
    assert "FECG-286 table of deaths: found no column patient" in told
    assert "Check the paths in COHORT.toml, and the names in [columns]." in told
    assert "leave-out" not in told  # no patient is at fault
