"""Tables and dates as hospitals have them: delimiters, compression, Parquet, orders of day and month, time zones."""

import datetime as dt
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedecg.cohort.build_dates import NO_DAY, Moments, days_between, read_moments
from fedecg.cohort.build_tables import Column, read_table
from fedecg.errors import CohortError

NAMES = {"patient": "id", "date": "when"}


def moments(*cells: str, order: str = "iso", zone: str = "", no_date: tuple[str, ...] = ()) -> Moments:
    return read_moments(Column(np.arange(len(cells)), cells), order, zone, no_date)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_delimiters_and_compression_are_seen_by_content(sign: str, packed: bool, tmp_path: Path) -> None:
    text = (
        "\ufeff"
        + sign.join(["other", "when", "id"])
        + "\n"
        + sign.join(['"a;,|b"', " 2020-01-01 ", "007"])
        + "\n"
    )
    content = text.replace("a;,|b", "x").encode()
    file = tmp_path / "anything"
    file.write_bytes(gzip.compress(content) if packed else content)
    table = read_table(file, "x", NAMES)
    assert (list(table["patient"].cells()), list(table["date"].cells())) == (["007"], ["2020-01-01"])


def test_what_stands_for_missing_is_blank_and_quoted_cells_keep_their_commas(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('id,when\n"a,b",NULL\nc,\nd,NaN\n"e\nf",2020-01-01\n')
    table = read_table(file, "x", NAMES)
    assert list(table["patient"].cells()) == ["a,b", "c", "d", "e\nf"]
    assert list(table["date"].cells()) == ["", "", "", "2020-01-01"]


def test_a_stray_mark_of_inches_and_cells_of_several_lines_lose_no_row(tmp_path: Path) -> None:
    for text in (
        'id,when\na 5" tube,2020-01-01\nb,2020-01-02\n',
        'id,when\n"a\nb",2020-01-01\n\n"c",2020-01-02\n',
    ):
        (tmp_path / "t.csv").write_text(text)
        assert list(read_table(tmp_path / "t.csv", "x", NAMES)["date"].cells()) == [
            "2020-01-01",
            "2020-01-02",
        ]


def test_parquet_gives_the_same_text_as_csv(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    noon = dt.datetime(2020, 1, 1, 12)
    columns = {
        "id": pa.array([7.0, None, 8.0]),
        "when": pa.array([noon, None, noon], pa.timestamp("ns")),
        "zoned": pa.array([noon] * 3, pa.timestamp("us", "UTC")),
        "day": pa.array([noon.date()] * 3),
        "code": pa.array(["I10 ", "I50", "I10"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), file)
    table = read_table(file, "x", {name: name for name in columns})
    assert list(table["id"].cells()) == ["7", "", "8"]
    assert list(table["day"].cells()) == ["2020-01-01"] * 3
    assert list(table["code"].cells()) == ["I10", "I50", "I10"]
    when = read_moments(table["when"], "iso")
    assert list(when.day) == [noon.toordinal(), NO_DAY, noon.toordinal()]
    assert when.second[0] == 12 * 3600
    zoned = read_moments(table["zoned"], "iso", "Europe/Berlin")
    assert zoned.second[0] == 13 * 3600


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "a file that cannot be read (no such file)"),
        (b"id,date\n1,2\n", "no column when"),
        (b"id,id,when\n1,2,3\n", "several columns id"),
        (b"id,when\n1,2,3\n", "rows of different lengths"),
        (
            b"id,when\n\xff\xfe,3\n",
            "text that is not UTF-8 (Latin-1, say: iconv -f WINDOWS-1252 -t UTF-8 writes",
        ),
        ("id,when,Gerät\n1,2,3\n".encode("latin-1"), "text that is not UTF-8 (Latin-1, say: iconv"),
        (b"\xef\xbb\xbf" + "id;when\nä;3\n".encode("latin-1"), "text that is not UTF-8 (Latin-1, say"),
        (b"", "an empty file"),
        (b"\n \n", "an empty file"),
        (b"PK\x03\x04" + bytes(30), "a spreadsheet or a zip file"),
        (b"\xd0\xcf\x11\xe0" + bytes(30), "a spreadsheet of an old kind"),
        ("id,when\na,2020-01-01\n".encode("utf-16"), "text in UTF-16, not UTF-8"),
        (
            b'id,when\na,"2020-01-01\nb,2020-01-02\nc,2020-01-03\n',
            "a quotation mark that is not closed, and rows",
        ),
        (b"PAR1 and no more", "Parquet that cannot be read"),
        (b"\x1f\x8b\x08truncated", "a file that cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_by_its_role(
    content: bytes | None, found: str, tmp_path: Path
) -> None:
    file = tmp_path / "smith.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CohortError, match=r"FECG-286 table of diagnoses: found ") as caught:
        read_table(file, "diagnoses", NAMES)
    text = str(caught.value)
    assert found in text
    assert "expected CSV, TSV or Parquet (also .gz) with the columns id, when" in text
    assert "smith" not in text


@pytest.mark.parametrize("most", [None, 1 << 10], ids=["times its size", "bytes"])
def test_a_compressed_table_that_would_fill_the_memory_is_refused(
    most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.csv.gz"
    if most:
        monkeypatch.setattr("fedecg.cohort.build_tables.UNPACKED_BYTES", most)
        file.write_bytes(gzip.compress(b"id,when\n" + b"1,2\n" * 300))
    else:
        file.write_bytes(gzip.compress(b"id,when\n" + b"1,2\n" * (1 << 23)))
    with pytest.raises(
        CohortError, match=r"FECG-286 .* found more than .* GB, or 200 times its size, unpacked"
    ):
        read_table(file, "x", NAMES)


def test_dates_are_read_in_the_stated_order_only() -> None:
    iso = dt.date(2020, 3, 4).toordinal()
    assert moments("2020-03-04").day[0] == iso
    assert moments("04.03.2020", order="day-first").day[0] == iso
    assert moments("3/4/2020", order="month-first").day[0] == iso
    assert moments("2020-03-04", order="day-first").day[0] == iso
    for cell in ("04.03.2020", "2020-02-30", "20200304", "1 Jan 2020", "2020-03-04x", "2020-03-04 25:00"):
        assert moments(cell).unreadable[0]
    assert moments("31/02/2020", order="day-first").unreadable[0]


def test_cells_that_stand_for_no_date_are_no_dates() -> None:
    found = moments("1900-01-01", "9999-12-31 00:00:00", "", no_date=("1900-01-01", "9999-12-31"))
    assert not found.known.any()
    assert not found.unreadable.any()


def test_a_column_of_midnights_has_dates_only() -> None:
    assert np.isnan(moments("2020-03-04 00:00:00", "2020-03-05 00:00:00").second).all()
    mixed = moments("2020-03-04 00:00:00", "2020-03-05 09:30", "2020-03-06")
    assert mixed.second[:2].tolist() == [0.0, 9.5 * 3600]
    assert np.isnan(mixed.second[2])


def test_an_offset_is_moved_to_the_hospitals_clock_or_refused() -> None:
    cells = (
        "2020-03-10T23:30:00Z",
        "2020-03-10 23:30 +00:00",
        "2020-07-10T23:30:00+00:00",
        "2020-03-10 23:30",
    )
    assert moments(*cells).offset.tolist() == [True, True, True, False]
    moved = moments(*cells, zone="Europe/Berlin")
    assert moved.second.tolist() == [1800.0, 1800.0, 5400.0, 84600.0]
    assert (moved.day - dt.date(2020, 3, 10).toordinal()).tolist() == [1, 1, 123, 0]
    assert moments("0001-01-01T00:00:00Z", zone="America/New_York").unreadable[0]


def test_days_between_are_fractions_only_where_both_have_a_time() -> None:
    timed, dated = moments("2020-03-10 06:00", "2020-03-12 18:00"), moments("2020-03-10", "2020-03-12")
    one, other = np.array([0]), np.array([1])
    assert days_between(timed.select(one), timed.select(other))[0] == 2.5
    assert days_between(timed.select(one), dated.select(other))[0] == 2.0
    assert days_between(dated.select(one), timed.select(other))[0] == 2.0
    assert np.isnan(days_between(moments(""), dated.select(other))[0])
