"""HDF5 of CODE-15 % and SPH, and plain numbers (CSV, Parquet, NumPy): many ECGs a file, rate and unit stated."""

import io
import json
import os
import zipfile

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from writers_vendor import EIGHT, rows_of, whole_counts

from fedecg.errors import SignalError
from fedecg.signals import LEADS, Recording, read_median, read_recording, read_recordings, recordings_in
from fedecg.signals.hdf5 import exam_ids

SIGNAL = (whole_counts(1000) * 0.005).astype(np.float32)  # mV
FACTS = {"rate-hz": 500, "unit": "mV", "leads": list(LEADS)}


@pytest.fixture
def code15(tmp_path):
    """A part as published: 7 s and 10 s padded with zeros to 4096, exam ids, a dummy at the end."""
    tracings = np.zeros((4, 4096, 12), dtype=np.float32)
    tracings[0, 648:3448] = whole_counts(2800, 1).T * 0.005 + 0.001
    tracings[1, 48:4048] = whole_counts(4000, 2).T * 0.005 + 0.001
    tracings[2] = whole_counts(4096, 3).T * 0.005 + 0.001
    with h5py.File(tmp_path / "exams_part0.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = tracings, np.array([1169160, 2873686, 168405, 0])
    return tmp_path / "exams_part0.hdf5"


def refusal(path, read=read_recording) -> str:
    with pytest.raises(SignalError) as caught:
        read(path)
    return str(caught.value)


def test_code15_gives_each_ecg_without_its_padding_and_without_the_dummy(code15):
    with h5py.File(code15) as file:
        stored = file["tracings"][()]
    read = list(read_recordings(code15))
    assert [place for place, _ in read] == [0, 1, 2]
    assert recordings_in(code15) == 3
    for (_, recording), row, (start, stop) in zip(
        read, stored, [(648, 3448), (48, 4048), (0, 4096)], strict=False
    ):
        assert recording.rate_hz == 400
        np.testing.assert_array_equal(recording.signal_mv, row[start:stop].T)


def test_exam_ids_join_a_part_to_exams_csv(code15):
    exams = pd.DataFrame({"exam_id": [168405, 1169160, 2873686], "age": [61, 43, 55]}).set_index("exam_id")
    assert exams.loc[exam_ids(code15)].age.tolist() == [43, 55, 61]


def test_one_of_many_is_named_by_its_place(code15):
    np.testing.assert_array_equal(
        read_recording(f"{code15}#1").signal_mv, dict(read_recordings(code15))[1].signal_mv
    )
    assert refusal(code15) == (
        "FECG-281 HDF5 file: found 3 ECGs in it; expected one, or its place: FILE#0 to FILE#2. "
        "Add the place of the ECG to the name."
    )
    assert refusal(f"{code15}#3").startswith(
        "FECG-281 HDF5 file: found 3 ECGs in it; expected one, or its place"
    )


def test_a_part_without_a_dummy_keeps_its_last_row(code15):
    with h5py.File(code15, "a") as file:
        file["tracings"][3, 5:900] = 1.0
        file["exam_id"][3] = 77
    assert recordings_in(code15) == 4


def test_sph_is_read_as_float16_millivolts_at_500_hz(tmp_path):
    with h5py.File(tmp_path / "A00001.h5", "w") as file:
        file["ecg"] = SIGNAL.astype(np.float16)
    recording = read_recording(tmp_path / "A00001.h5")
    np.testing.assert_array_equal(recording.signal_mv, SIGNAL.astype(np.float16).astype(np.float32))
    assert (recording.rate_hz, recordings_in(tmp_path / "A00001.h5")) == (500, 1)


def other_sets(path):
    with h5py.File(path, "w") as file:
        file["signals"] = SIGNAL


def eight_leads(path):
    with h5py.File(path, "w") as file:
        file["ecg"] = SIGNAL[:8]


def linked(path):
    with h5py.File(path.with_name("elsewhere"), "w") as file:
        file["ecg"] = SIGNAL
    with h5py.File(path, "w") as file:
        file["ecg"] = h5py.ExternalLink("elsewhere", "/ecg")


def virtual(path):
    layout = h5py.VirtualLayout(shape=(12, 1000), dtype="f4")
    layout[:] = h5py.VirtualSource("elsewhere", "ecg", shape=(12, 1000))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("ecg", layout)


@pytest.mark.parametrize("write", [other_sets, eight_leads, linked, virtual])
def test_hdf5_of_another_set_or_that_leads_elsewhere_is_refused(tmp_path, write):
    write(tmp_path / "x.h5")
    assert refusal(tmp_path / "x.h5") == (
        "FECG-284 HDF5 file: found other data sets than those of CODE-15 % or SPH; expected tracings (N, samples, 12) "
        "with exam_id, or ecg (12, samples). Export the ECG another way."
    )


def test_hdf5_that_declares_more_than_it_can_hold_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("ecg", shape=(12, 10**9), dtype="f4", chunks=(12, 1000))
    assert refusal(tmp_path / "x.h5").startswith("FECG-278 HDF5 file: found 12000000000 declared samples in")


def test_hdf5_that_is_cut_off_or_has_other_ids_is_refused(code15):
    with h5py.File(code15, "a") as file:
        del file["exam_id"]
        file["exam_id"] = np.array([1, 2])
    assert refusal(code15).startswith("FECG-277 HDF5 file: found 2 exam ids for 4 tracings")
    code15.write_bytes(code15.read_bytes()[:3000])
    assert refusal(code15).startswith("FECG-277 HDF5 file: found a file that cannot be opened as one")


def csv_bytes(signal=SIGNAL, leads=LEADS, comment="# rate-hz=500 unit=mV\n", separator=","):
    lines = [separator.join(leads), *(separator.join(map(str, row)) for row in signal.T.tolist())]
    return (comment + "\n".join(lines) + "\n").encode()


def parquet_bytes(columns, metadata):
    table = pa.table(columns).replace_schema_metadata(metadata)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def npz_bytes(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


STATED = {"rate-hz": "500", "unit": "mV"}
ARRAYS = {"rate_hz": 500, "unit": "mV", "leads": list(LEADS)}
WRITTEN = {
    "csv": csv_bytes(),
    "csv with ; and a time": csv_bytes(np.vstack([np.arange(1000), SIGNAL]), ["time", *LEADS], separator=";"),
    "csv in uV, other order": csv_bytes(
        SIGNAL[::-1] * 1000, LEADS[::-1], "\ufeff# unit: uV\n# rate_hz: 500\n\n", "\t"
    ),
    "csv in µV, Latin-1": csv_bytes(SIGNAL * 1000, comment="# rate-hz=500 unit=µV\n")
    .decode()
    .encode("latin-1"),
    "parquet": parquet_bytes(dict(zip(LEADS, SIGNAL, strict=True)), STATED),
    "parquet of lists": parquet_bytes(
        {lead: [row.tolist()] for lead, row in zip(LEADS, SIGNAL, strict=True)}, STATED
    ),
    "npz": npz_bytes(signal=SIGNAL, **ARRAYS),
    "npz of one in many": npz_bytes(signal=SIGNAL[None], **ARRAYS),
    "npz, Fortran order": npz_bytes(signal=np.asfortranarray(SIGNAL), **ARRAYS),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_numbers_that_state_rate_unit_and_leads_are_read(tmp_path, kind):
    (tmp_path / "ecg").write_bytes(WRITTEN[kind])
    recording = read_recording(tmp_path / "ecg")
    np.testing.assert_allclose(recording.signal_mv, SIGNAL, atol=1e-6)
    assert recording.rate_hz == 500


def test_an_array_is_described_by_the_json_beside_it(tmp_path):
    np.save(tmp_path / "ecg.npy", np.stack([rows_of(SIGNAL, EIGHT)] * 2))
    beside = tmp_path / "ecg.npy.json"
    beside.write_text(json.dumps(FACTS | {"leads": EIGHT}))
    read = list(read_recordings(tmp_path / "ecg.npy"))
    assert [place for place, _ in read] == [0, 1]
    np.testing.assert_allclose(read[1][1].signal_mv, SIGNAL, atol=0.0051)
    beside.unlink()
    assert refusal(tmp_path / "ecg.npy#0") == (
        "FECG-280 NumPy file: found no rate-hz, no unit, no leads; expected rate-hz, unit (mV or uV) and leads "
        "(I, II, III ...), in it or in FILE.json. State them: see docs/formats.md."
    )
    beside.write_text("[1]")
    assert refusal(tmp_path / "ecg.npy#0").startswith(
        "FECG-280 FILE.json: found text that is no JSON object; expected"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (csv_bytes(comment=""), "FECG-280 CSV file: found no rate-hz, no unit"),
        (
            csv_bytes(comment="# rate-hz=500 unit=adu\n"),
            "FECG-207 units: found 12 of 12 leads in an unknown unit",
        ),
        (csv_bytes(comment="# rate-hz=x unit=mV\n"), "FECG-280 CSV file: found no rate-hz; expected"),
        (csv_bytes(leads=[*LEADS[:-1], "heart rate"]), "FECG-208 leads: found columns with an unknown name"),
        (csv_bytes() + b"1,2\n", None),  # a short last line has gaps
        (
            csv_bytes() + b"1,2,x\n",
            "FECG-277 CSV file: found cells that are no numbers, or lines of different lengths",
        ),
        (
            csv_bytes(separator=";").replace(b".", b","),
            "FECG-277 CSV file: found cells that are no numbers (decimal commas?), or lines of different lengths",
        ),
        (csv_bytes() + b",".join([b"1"] * 14) + b"\n", "FECG-277 CSV file: found cells that are no numbers"),
        (
            parquet_bytes(dict(zip(LEADS, SIGNAL, strict=True)), {}),
            "FECG-280 Parquet file: found no rate-hz, no unit",
        ),
        (parquet_bytes({"a": [1]}, STATED), "FECG-280 Parquet file: found no leads"),
        (
            parquet_bytes({lead: ["x"] for lead in LEADS}, STATED),
            "FECG-277 Parquet file: found lead columns that hold",
        ),
        (WRITTEN["parquet"][:-9], "FECG-277 Parquet file: found a footer that reads otherwise"),
        (npz_bytes(signal=SIGNAL), "FECG-280 NumPy file: found no rate-hz, no unit, no leads"),
        (
            npz_bytes(ecg=SIGNAL, **ARRAYS),
            "FECG-280 NumPy file: found no array named signal; expected signal, rate_hz",
        ),
        (
            npz_bytes(signal=SIGNAL.T, **ARRAYS),
            "FECG-277 NumPy file: found an array of shape (1000, 12) for 12 leads",
        ),
        (
            npz_bytes(signal=SIGNAL.astype(complex), **ARRAYS),
            "FECG-277 NumPy file: found an array of another kind or",
        ),
        (WRITTEN["npz"][:-30], "FECG-277 NumPy file: found a zip file that cannot be unpacked"),
        (npz_bytes(signal=np.zeros((12, 10**6)), **ARRAYS), "FECG-278 NumPy file: found"),
    ],
)
def test_numbers_that_are_not_stated_or_broken_are_refused(tmp_path, content, text):
    (tmp_path / "ecg").write_bytes(content)
    if text is None:
        assert np.isnan(read_recording(tmp_path / "ecg").signal_mv[2:, -1]).all()
    else:
        assert refusal(tmp_path / "ecg").startswith(text)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "x.npy", np.array([Trap()] * 12, dtype=object), allow_pickle=True)
    (tmp_path / "x.npy.json").write_text(json.dumps(FACTS))
    assert refusal(tmp_path / "x.npy").startswith(
        "FECG-277 NumPy file: found an array of another kind or size"
    )
    assert not (tmp_path / "sprung").exists()


def test_a_zip_entry_that_declares_more_than_its_file_can_hold_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("signal.npy", bytes(60 * 2**20))
    assert (tmp_path / "x.npz").stat().st_size < 100_000
    assert refusal(tmp_path / "x.npz").startswith("FECG-278 NumPy file: found 7864320 declared samples in")


def test_one_bad_ecg_among_many_does_not_stop_the_others(tmp_path):
    columns = {
        lead: [row.tolist(), row.tolist(), row.tolist()] for lead, row in zip(LEADS, SIGNAL, strict=True)
    }
    columns["V6"][1] = [1.0, 2.0]
    (tmp_path / "many.parquet").write_bytes(parquet_bytes(columns, STATED))
    kinds = [(place, type(found)) for place, found in read_recordings(tmp_path / "many.parquet")]
    assert kinds == [(0, Recording), (1, SignalError), (2, Recording)]
    assert refusal(tmp_path / "many.parquet#1").startswith(
        "FECG-277 Parquet file: found leads of different lengths"
    )


def test_one_ecg_of_a_record_is_read_through_the_same_door(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=3))
    assert recordings_in(header) == 1
    [(place, recording)] = read_recordings(header)
    assert (place, recording.signal_mv.shape) == (0, (12, 1500))


@pytest.mark.parametrize(
    "held", [{"feats": SIGNAL[:8], "curr_sample_rate": 500}, {"val": SIGNAL}, {"feats": SIGNAL}]
)
def test_a_matlab_file_of_another_layout_is_refused(tmp_path, held):
    scipy.io.savemat(tmp_path / "x.mat", held)
    assert refusal(tmp_path / "x.mat").startswith(
        "FECG-280 MATLAB file: found arrays whose unit, rate and leads nobody"
    )


def test_a_matlab_file_that_unpacks_beyond_its_size_is_refused(tmp_path):
    held = {"feats": np.zeros((12, 10**6)), "curr_sample_rate": 500}
    scipy.io.savemat(tmp_path / "x.mat", held, do_compression=True)
    assert refusal(tmp_path / "x.mat").startswith(
        "FECG-278 MATLAB file: found arrays that unpack to many times the"
    )


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "x.csv"])
def test_numbers_hold_no_median_beat(tmp_path, name, code15):
    content = {"x.npz": WRITTEN["npz"], "x.h5": code15.read_bytes(), "x.csv": csv_bytes()}[name]
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name, read_median).startswith("FECG-282 ")


def test_an_exponent_far_out_does_not_end_the_process(tmp_path):
    """pandas' own reading of numbers is killed by it."""
    content = csv_bytes().replace(b"\n", b"\n0.25" + b"9" * 20 + b"1e4009", 3)
    (tmp_path / "ecg.csv").write_bytes(content)
    assert refusal(tmp_path / "ecg.csv").startswith("FECG-")
