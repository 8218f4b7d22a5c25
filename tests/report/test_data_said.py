"""A site's own table beside its files: which row speaks of which file, and what is passed over aloud."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from fedecg.errors import RunInputError
from fedecg.progress import Progress
from fedecg.report.data_said import read_said, said_of


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(console=Console(file=io.StringIO(), width=200))

    @property
    def text(self) -> str:
        file = self.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


def said(folder: Path, text: str, sources: list[str]) -> tuple[list[str], str]:
    """The patient that each file gets, "" for none, and what was said."""
    (folder / "t.csv").write_text(text)
    told = Told()
    table = read_said(folder / "t.csv", "file", {}, told)
    return [cells.get("patient", "") for cells in said_of(sources, table, told)], told.text


def test_a_file_is_found_by_its_whole_name_else_by_an_unambiguous_last_part(tmp_path: Path) -> None:
    text = "file,patient\na/one.hea,p1\nb/one,p2\nelsewhere/two.xml,p3\nfour,p4\nx/five,p5\ny/five,p6\n"
    sources = ["a/one.hea", "b/one.hea", "c/two", "three.hea", "d/four.hea", "e/four.hea", "z/five.hea"]
    found, told = said(tmp_path, text, sources)
    assert found == ["p1", "p2", "p3", "", "", "", ""]  # two files called four, two rows called five
    assert "--table: 3 of 7 files are in it" in told


def test_ecgs_of_one_file_share_its_row_by_the_whole_name(tmp_path: Path) -> None:
    assert said(tmp_path, "file,patient\npart.hdf5,p1\n", ["part.hdf5"] * 3)[0] == ["p1"] * 3


def test_rows_of_another_length_are_passed_over_aloud(tmp_path: Path) -> None:
    found, told = said(tmp_path, "file,patient\na,p1\nb,p2,more\nc\n\nd,p4\n", ["a", "b", "c", "d"])
    assert found == ["p1", "", "", "p4"]
    assert "warning: --table: 2 rows of another length than its header were passed over" in told


def test_a_table_of_other_files_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RunInputError,
        match=r"FECG-609 .*found --table whose 1 names are those of none of 1 files; .* same last part",
    ):
        said(tmp_path, "file,patient\na,p1\n", ["b"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunInputError, match="FECG-609 .*found --table: a pipe or device, not a file"):
        read_said(tmp_path / "pipe", "file", {}, Told())
