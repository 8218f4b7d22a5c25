"""Record files become rows in their order; a bad one gets its code."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedecg
from fedecg.cli import main
from fedecg.cohort import Cohort
from fedecg.errors import ClinicalInputError
from fedecg.model import BaselineFile
from fedecg.prediction.files import (
    FileRow,
    csv_text,
    predict_files,
    record_names,
    repeated,
    row_fields,
    shortened,
    would_replace,
)
from fedecg.prediction.predictor import Prediction
from fedecg.signals import LEADS, Recording, SignalStore
from fedecg.training import SiteData, log_hazards

WriteRecord = Callable[..., Path]
NOUGHTS = BaselineFile(edges_days=[0.0, 200.0], cumulative_hazard=[0.0, 0.0], variance=[0.0, 0.0])
WHY = (
    "Either it is not trained to its end, or no site has told an event of its validation patients: there was none, or "
    "it was withheld, below the site's thresholds."
)


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


def test_a_record_named_by_its_header_and_by_its_signals_is_repeated(tmp_path: Path) -> None:
    names = [
        f"{tmp_path}/a.hea",
        f"{tmp_path}/a.mat",
        f"{tmp_path}/b",
        f"{tmp_path}/../{tmp_path.name}/b.dat",
        "c",
    ]
    assert repeated(names) == 2
    assert repeated(names[::2]) == 0


def test_a_long_name_loses_its_middle() -> None:
    assert shortened("a" * 40) == "a" * 40
    name = shortened(f"/data/{'x' * 100}/00017_hr.hea")
    assert len(name) == 40
    assert name.startswith("/data/xxx")
    assert name.endswith("xxx/00017_hr.hea")
    assert name.count("\u2026") == 1


def test_only_a_table_of_predictions_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "smith.csv"
    assert not would_replace(out)
    for content in ("", csv_text([FileRow("a", Prediction(0.1))], [1.0]), '{\n  "model-sha256": "0"}'):
        out.write_text(content)
        assert would_replace(out)
    out.write_text("patient,file,event\n")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, found in ((out, "another file"), (tmp_path, "a folder"), (tmp_path / "pipe.csv", "a pipe")):
        with pytest.raises(
            ClinicalInputError, match=f"FECG-275 --out: found {found}.*remove that file"
        ) as told:
            would_replace(name)
        assert "smith" not in str(told.value)


def test_what_is_wrong_with_a_file_or_its_amplitude_stands_beside_its_code(
    model, recordings: list[Recording], write_record: WriteRecord, tmp_path: Path
) -> None:
    good = recordings[0]
    write_record(good, "good")
    write_record(Recording(good.signal_mv * 10, good.rate_hz), "loud")
    write_record(Recording(good.signal_mv / 10, good.rate_hz), "quiet")
    write_record(Recording(good.signal_mv * 1000, good.rate_hz), "microvolts", gain=1.0)
    write_record(Recording(-good.signal_mv, good.rate_hz), "inverted")
    noise = np.random.default_rng(1).normal(0, 0.3, (12, 5000)).astype(np.float32)
    write_record(Recording(noise, 500.0), "noise")
    os.mkfifo(tmp_path / "pipe.hea")
    expected = {
        "good": ("", ""),
        "loud": ("", "amplitudes are unusually high (check gain and unit): all leads"),
        "quiet": ("", "amplitudes are unusually low (check gain and unit)"),
        "microvolts": ("FECG-272", "amplitudes are unusually high (check gain and unit): all leads"),
        "inverted": ("", "I, II and V6 point downwards: a wrong sign, or electrodes swapped?"),
        "pipe": ("FECG-201", "header: a pipe or device, not a file"),
        "absent": ("FECG-201", "header: no such file"),
    }
    rows = predict_files(model, [str(tmp_path / name) for name in (*expected, "noise")])
    other = ("lasts ", "limb leads ")  # of the model's short input, and of rounding to whole millivolts
    found = {
        Path(row.file).name: (
            row.prediction.code,
            "; ".join(text for text in row.prediction.warnings if not text.startswith(other)),
        )
        for row in rows
    }
    assert "no heartbeats are seen: noise?" in found.pop("noise")[1]
    assert found == expected


@pytest.mark.parametrize("baseline", [None, NOUGHTS], ids=["none", "of noughts, as earlier versions shipped"])
def test_predict_and_verify_say_why_a_model_tells_no_risk(
    make_model: Callable[..., Path],
    baseline: BaselineFile | None,
    recordings: list[Recording],
    write_record: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = str(make_model(baseline=baseline, population=None))
    assert main(["predict", model, str(write_record(recordings[0], "one"))]) == 0
    assert f"The model has no baseline hazard: log hazards only, no risks. {WHY}" in capsys.readouterr().err
    assert main(["verify", model]) == 0
    assert f"none (log hazards only). {WHY}" in capsys.readouterr().out
