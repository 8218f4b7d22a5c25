"""Record files become rows in their order; a bad one gets its code."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedecg
from fedecg.cohort import Cohort
from fedecg.errors import ClinicalInputError
from fedecg.prediction.files import FileRow, csv_text, predict_files, record_names, row_fields
from fedecg.prediction.predictor import Prediction
from fedecg.signals import LEADS, Recording, SignalStore
from fedecg.training import SiteData, log_hazards

WriteRecord = Callable[..., Path]


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return fedecg.load(model_folder)


def test_wfdb_files_are_predicted_as_the_training_time_evaluation_scores_their_records(
    model, recordings: list[Recording], store: SignalStore, cohort: Cohort, write_record: WriteRecord
) -> None:
    files = [str(write_record(recording, f"r{row}")) for row, recording in enumerate(recordings)]
    site = SiteData("site", cohort, store, np.zeros((len(cohort), 0), dtype=np.float32))
    expected = log_hazards(model.saved.network, site, np.arange(len(cohort)))
    rows = predict_files(model, files)
    assert [row.file for row in rows] == files
    found = np.array([row.prediction.log_hazard for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_many_batches_keep_their_order_and_say_how_far_they_are(
    model, recordings: list[Recording], write_record: WriteRecord
) -> None:
    names = [str(write_record(recording, f"r{row}")) for row, recording in enumerate(recordings[:3])]
    done: list[int] = []
    rows = predict_files(model, names * 100, progress=done.append)
    assert [row.file for row in rows] == names * 100
    assert done == [64, 128, 192, 256, 300]
    each = np.array([row.prediction.log_hazard for row in rows]).reshape(100, 3)
    assert np.ptp(each, axis=0).max() < 1e-5
    assert np.ptp(each[0]) > 1e-3


def test_a_bad_file_gets_its_code_and_the_rest_are_predicted(
    model, recordings: list[Recording], write_record: WriteRecord, tmp_path: Path
) -> None:
    good = recordings[0]
    names = {
        "good": "",
        "volts": "FECG-207",
        "no-v6": "FECG-210",
        "slow": "FECG-211",
        "short": "FECG-213",
        "flat": "FECG-214",
        "truncated": "FECG-205",
        "absent": "FECG-201",
        "nul\0": "FECG-201",
        "again": "",
    }
    for name in ("good", "again", "truncated"):
        write_record(good, name)
    write_record(good, "volts", unit="V")
    write_record(good, "no-v6", leads=LEADS[:11])
    write_record(Recording(good.signal_mv, 50.0), "slow")
    header = tmp_path / "slow.hea"
    header.write_text(header.read_text().replace("slow 12 50 ", "slow 12 20 "))
    write_record(Recording(good.signal_mv[:, :500], 500.0), "short")
    write_record(Recording(np.zeros((12, 5000), dtype=np.float32), 500.0), "flat")
    data = tmp_path / "truncated.dat"
    data.write_bytes(data.read_bytes()[:1000])
    rows = predict_files(model, [str(tmp_path / name) for name in names])
    assert {Path(row.file).name: row.prediction.code for row in rows} == names
    assert rows[0].prediction.log_hazard == pytest.approx(rows[-1].prediction.log_hazard, abs=1e-5)
    assert all((row.prediction.log_hazard is None) == bool(row.prediction.code) for row in rows)


def test_microvolts_and_an_ending_make_no_difference(
    model, recordings: list[Recording], write_record: WriteRecord
) -> None:
    plain = write_record(recordings[0], "plain")
    micro = write_record(recordings[0], "micro", unit="uV", gain=1.0)
    rows = predict_files(model, [str(plain), f"{plain}.hea", f"{plain}.dat", str(micro)])
    found = [row.prediction.log_hazard for row in rows]
    assert found == pytest.approx([found[0]] * 4, abs=1e-5)


def test_names_come_as_they_are_from_a_list_and_from_stdin(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a b\n\n  c\r\n", encoding="utf-8-sig")
    assert record_names(["x", f"@{listed}", "-"], io.StringIO("d\n")) == ["x", "a b", "c", "d"]


def test_an_absent_list_and_an_empty_one_are_refused_without_their_name(tmp_path: Path) -> None:
    with pytest.raises(ClinicalInputError, match=r"FECG-265 .* cannot be read \(no such file\)") as told:
        record_names([f"@{tmp_path / 'smith.txt'}"], io.StringIO())
    assert "smith" not in str(told.value)
    with pytest.raises(ClinicalInputError, match="FECG-265 records to predict: found 0 names"):
        record_names(["-"], io.StringIO("\n"))


def test_a_row_has_the_columns_that_are_promised(
    model, recordings: list[Recording], write_record: WriteRecord
) -> None:
    (row,) = predict_files(model, [str(write_record(recordings[0], "r"))], [1, 2.5, 10])
    fields = row_fields(row, [1, 2.5, 10])
    assert list(fields) == [
        "file", "log-hazard", "risk-1y", "risk-1y-low", "risk-1y-high", "risk-2.5y", "risk-2.5y-low",
        "risk-2.5y-high", "risk-10y", "risk-10y-low", "risk-10y-high", "percentile", "percentile-bound", "warnings",
        "code",
    ]  # fmt: skip
    assert fields["risk-1y-low"] < fields["risk-1y"] < fields["risk-1y-high"]
    assert fields["risk-10y"] is None  # beyond the baseline
    assert fields["code"] == ""


def test_a_row_names_its_page_only_where_pages_were_asked_for() -> None:
    plain, explained = FileRow("a", Prediction(0.25)), FileRow("a", Prediction(0.25), "pages/0001.html")
    assert "explanation" not in row_fields(plain, [1.0])
    assert row_fields(explained, [1.0])["explanation"] == "pages/0001.html"


def test_what_must_not_be_separated_from_a_risk_is_a_column_of_every_row() -> None:
    rows = [FileRow("a", Prediction(0.25)), FileRow("b", Prediction(None, code="FECG-201"))]
    text = csv_text(rows, [1.0], {"outcomes": "SIMULATED", "note": "not a medical device, really"})
    assert [(row["outcomes"], row["note"]) for row in csv.DictReader(io.StringIO(text))] == [
        ("SIMULATED", "not a medical device, really")
    ] * 2


def test_csv_is_read_back_and_no_name_is_a_formula() -> None:
    rows = [
        FileRow('=HYPERLINK("x")', Prediction(None, warnings=("flat: V1, V2", "gaps: II"), code="FECG-214")),
        FileRow('a, "b"\nc', Prediction(0.25)),
    ]
    first, second = csv.DictReader(io.StringIO(csv_text(rows, [1.0])))
    assert first["file"] == '\'=HYPERLINK("x")'
    assert first["warnings"] == "flat: V1, V2; gaps: II"
    assert (first["log-hazard"], first["code"]) == ("", "FECG-214")
    assert second["file"] == 'a, "b"\nc'
    assert float(second["log-hazard"]) == 0.25


def test_names_stay_out_of_the_text_of_a_row() -> None:
    assert "smith" not in repr(FileRow("smith.hea", Prediction(0.1)))
