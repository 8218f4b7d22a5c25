"""Which files are ingested, under which names, in which order."""

import os

import pytest

from fedecg.errors import SignalError
from fedecg.signals.ingest_sources import find_items

HEADER = "{0} 1 500 10\n{0}.dat 16 1000/mV 16 0 0 0 0 II\n"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "ecgs"
    (place / "b").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for name in ("b/two", "a"):
        (place / f"{name}.hea").write_text(HEADER.format(name.rpartition("/")[2]))
        (place / f"{name}.dat").write_bytes(bytes(20))
    (place / "multi.hea").write_text("multi/2 1 500 20\nseg1 10\nseg2 10\n")
    for name in ("seg1", "seg2"):
        (place / f"{name}.hea").write_text(HEADER.format(name))
        (place / f"{name}.dat").write_bytes(bytes(20))
    (place / "c.xml").write_text("<x/>")
    (place / ".hidden" / "d.xml").write_text("<x/>")
    (place / ".e.xml").write_text("<x/>")
    return place


def sources(*named) -> list[str]:
    return [item.source for item in find_items([str(each) for each in named])]


def test_a_folder_gives_each_record_once_in_order_without_signals_segments_and_hidden_files(folder):
    assert sources(folder) == ["a.hea", "c.xml", "multi.hea", "b/two.hea"]


def test_several_folders_are_told_apart_by_their_names(folder, tmp_path):
    other = tmp_path / "others"
    other.mkdir()
    (other / "c.xml").write_text("<x/>")
    assert sources(folder, other) == [
        "ecgs/a.hea",
        "ecgs/c.xml",
        "ecgs/multi.hea",
        "ecgs/b/two.hea",
        "others/c.xml",
    ]


def test_a_file_that_is_named_twice_is_taken_once(folder):
    (folder / "link.xml").symlink_to(folder / "c.xml")
    assert sources(folder / "c.xml", folder / "c.xml", folder / "link.xml") == [str(folder / "c.xml")]
    assert len(sources(folder / "a", folder / "a.hea", folder / "a.dat")) == 1


def test_a_link_in_circles_ends(folder):
    (folder / "b" / "circle").symlink_to(folder)
    assert len(sources(folder)) == 4


def test_a_pattern_gives_what_it_matches(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert sources("**/*.hea")[:2] == ["a.hea", "b/two.hea"]
    assert sources(f"{folder}/*.xml") == [str(folder / ".e.xml"), str(folder / "c.xml")]


def test_a_table_gives_the_cells_of_its_column_as_they_stand(folder):
    (folder / "t.csv").write_text("patient,file\nA,b/two.hea\nB, c.xml\nC,\nD,absent.dcm\nA,b/two.dat\n")
    items = find_items([str(folder / "t.csv")])
    assert [item.source for item in items] == ["b/two.hea", "c.xml", "absent.dcm"]
    assert [item.path for item in items] == [folder / "b/two.hea", folder / "c.xml", folder / "absent.dcm"]
    (folder / "t.tsv").write_text("patient\tpath\nA\tc.xml\n")
    assert [item.source for item in find_items([str(folder / "t.tsv")], "path")] == ["c.xml"]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_table_may_be_separated_by_any_of_four_signs(folder, sign, name):
    (folder / name).write_text(f"file{sign}patient{sign}note, {{in; words}}\nc.xml{sign}A{sign}x\n")
    assert sources(folder / name) == ["c.xml"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("path,id\nc.xml,1\n", "2 columns between commas"), ("a;b,c;d\n", "3 columns between semicolons")],
)
def test_a_table_without_the_column_is_told_with_column_and_separator(folder, text, found):
    (folder / "t.csv").write_text(text)
    with pytest.raises(SignalError, match=rf"FECG-294 .* found a table without a column file \({found}\)"):
        sources(folder / "t.csv")


@pytest.mark.parametrize("name", ["absent", "absent.csv", "x" * 300, "absent.npz#3"])
def test_a_source_that_is_not_there_is_told_without_its_name(folder, name):
    with pytest.raises(SignalError, match=r"FECG-294 .* found 1 of 2 names of nothing that is") as caught:
        sources(folder, folder / name)
    assert name not in str(caught.value)


def test_one_ecg_of_a_file_and_a_record_without_its_ending_are_there(folder):
    assert sources(folder / "c.xml#3", folder / "a") == [str(folder / "c.xml#3"), str(folder / "a")]


@pytest.mark.parametrize("pattern", ["*.dcm", "x" * 300 + "*"])
def test_a_pattern_that_no_file_matches_is_told(folder, pattern):
    with pytest.raises(SignalError, match=r"FECG-294 .* found a pattern that no file matches"):
        sources(folder, folder / pattern)


def test_a_name_that_no_file_can_have_costs_no_other(folder):
    (folder / "l.txt").write_text(f"c.xml\n{'x' * 300}\nb/two\n")
    assert sources(folder / "l.txt") == ["c.xml", "x" * 300, "b/two"]


def test_a_list_gives_its_lines_and_a_table_with_a_column_a_lead_is_a_record(folder):
    (folder / "l.txt").write_text("\ufeffb/two\n\n  c.xml\n", encoding="utf-8")
    assert sources(folder / "l.txt") == ["b/two", "c.xml"]
    (folder / "ecg.csv").write_text("I,II,III,aVR,aVL,aVF,V1,V2\n1,2,3,4,5,6,7,8\n")
    assert sources(folder / "ecg.csv") == [str(folder / "ecg.csv")]


def test_nothing_to_ingest_is_told(tmp_path):
    with pytest.raises(
        SignalError, match=r"FECG-294 files to ingest: found no file; expected folders, patterns"
    ):
        find_items([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "found"), [("t.csv", "a table that cannot"), ("l.txt", "a list that cannot")]
)
def test_a_list_or_table_that_is_no_text_is_told_without_its_content(tmp_path, name, found):
    (tmp_path / name).write_bytes(b"file\xff\xfe\x81\n")
    with pytest.raises(SignalError, match=rf"FECG-294 .* found {found} be read \(text that is not UTF-8\)"):
        find_items([str(tmp_path / name)])


def test_different_files_under_one_name_are_refused(folder, tmp_path):
    other = tmp_path / "deep" / "ecgs"
    other.mkdir(parents=True)
    (other / "c.xml").write_text("<x/>")
    with pytest.raises(
        SignalError, match=r"FECG-295 files to ingest: found 1 of 5 with the name of another file"
    ):
        find_items([str(folder), str(other)])


@pytest.mark.timeout(10)
def test_a_pipe_with_the_name_of_a_header_is_an_item_like_any_and_nobody_waits_for_it(folder):
    os.mkfifo(folder / "pipe.hea")
    assert "pipe.hea" in sources(folder)
