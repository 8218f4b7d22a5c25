"""The key of the patients' numbers: beside the tables or elsewhere, for its owner alone, never passed over."""

import csv
import os
from pathlib import Path

import pytest
from cohort_hospital import SETTINGS, write_hospital

from fedecg.cli import main


def build(folder: Path, key: str = "") -> tuple[int, dict[str, str]]:
    """Exit status, and file -> number of its patient; with [patients] key where one is named."""
    named = f'[patients]\nkey = "{key}"\n' if key else ""
    rules = write_hospital(folder, SETTINGS + named)
    status = main(["cohort", "build", str(rules), "--out", str(folder / "out")])
    if status:
        return status, {}
    with (folder / "out/cohort-files.csv").open(newline="") as file:
        return status, {row["file"]: row["patient"] for row in csv.DictReader(file)}


def test_a_key_may_lie_elsewhere_and_is_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hospital").mkdir()
    status, first = build(tmp_path / "hospital", "../safe/numbers.key")
    key = tmp_path / "safe/numbers.key"
    assert status == 0
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)
    assert not list((tmp_path / "hospital").rglob("*.key"))
    assert build(tmp_path / "hospital", str(key)) == (0, first)
    key.unlink()
    assert build(tmp_path / "hospital", str(key))[1] != first


def test_an_earlier_builds_key_is_not_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To make another one silently would be to give everybody another number."""
    _, first = build(tmp_path)
    for there in (False, True):
        key = tmp_path / "safe.key"
        if there:
            key.write_bytes(b"x" * 32)
            key.chmod(0o600)
        assert build(tmp_path, "safe.key") == (3, {})
        told = " ".join(capsys.readouterr().err.split())
        assert (
            "FECG-286 patients.key in --out: found the key of an earlier build, and another file, or none"
            in told
        )
        assert "Move it to where [patients] key says, or remove that line." in told
        assert key.exists() == there
    (tmp_path / "out/patients.key").replace(tmp_path / "safe.key")
    assert build(tmp_path, "safe.key") == (0, first)
    assert build(tmp_path, "out/patients.key")[1] != first  # a new one: there is none any more
    assert build(tmp_path, "out/patients.key")[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = build(tmp_path)
    key = tmp_path / "out/patients.key"
    for mode in (0o644, 0o640, 0o602):
        key.chmod(mode)
        assert build(tmp_path)[0] == 3
        told = " ".join(capsys.readouterr().err.split())
        assert (
            f"found a file that others than its owner may use (mode {mode:04o}); expected mode 0600" in told
        )
    key.chmod(0o600)
    assert build(tmp_path) == (0, first)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("x" * 300, "FECG-601 file " + "x" * 300 + ": found file name too long"),
        ("cohort.toml/k", "FECG-601 file k: found a path that leads through a file"),
        ("dangling", "FECG-286 patients.key, the key of the patients' numbers: found no such file"),
        (".", "FECG-286 patients.key, the key of the patients' numbers: found a folder"),
    ],
    ids=["too long", "through a file", "a link that leads nowhere", "a folder"],
)
def test_a_place_that_cannot_hold_a_key_is_refused_before_anything_is_written(
    named: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    assert build(tmp_path, named)[0] in (1, 3)
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
