"""The reader for WFDB format 16 against wfdb, field by field, and against damaged files."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from fedecg.errors import SignalError
from fedecg.signals import LEADS, read_recording
from fedecg.signals.wfdb16 import is_plain_format16, parse_header, read_format16

COUNTS = (np.arange(12 * 40).reshape(40, 12) * 37 % 4001 - 2000).astype("<i2")


def write(
    folder: Path, line: str = "rec.dat 16 1000/mV 16 0 0 0 0 {lead}", record: str = "rec 12 500 40"
) -> Path:
    """A header with the same line for every lead, and COUNTS in rec.dat."""
    lines = [record, *(line.format(lead=lead) for lead in LEADS), "# a comment"]
    (folder / "rec.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "rec.dat").write_bytes(COUNTS.tobytes())
    return folder / "rec.hea"


@pytest.mark.parametrize(
    "scale",
    ["1000/mV", "1000.0(0)/mV", "4880/mV", "200(17)/mV", "2e2(-5)/mV", "-1000/mV", "1(1)/uV", "1000(0)"],
)
def test_gain_and_baseline_agree_with_wfdb(tmp_path, scale):
    header = write(tmp_path, f"rec.dat 16 {scale} 16 0 0 0 0 {{lead}}")
    factor = 1e-3 if scale.endswith("uV") else 1.0
    expected = wfdb.rdsamp(str(header.with_suffix("")))[0].T * factor
    np.testing.assert_allclose(read_recording(header).signal_mv, expected, atol=1e-5, rtol=1e-6)


def test_without_a_baseline_the_adc_zero_is_the_baseline(tmp_path):
    header = write(tmp_path, "rec.dat 16 200/mV 16 24 0 0 0 {lead}")
    np.testing.assert_allclose(read_recording(header).signal_mv, (COUNTS.T - 24.0) / 200, atol=1e-5)


@pytest.mark.parametrize("gain", ["0/mV", "0", "0(5)/uV"])
def test_a_gain_of_zero_is_refused_for_nobody_calibrated_the_signal(tmp_path, gain):
    header = write(tmp_path, f"rec.dat 16 {gain} 16 0 0 0 0 {{lead}}")
    with pytest.raises(
        SignalError, match=r"FECG-271 gain: found 12 of 12 leads without one .* expected counts per mV"
    ):
        read_recording(header)


def test_a_gain_that_is_left_out_is_refused_as_well(tmp_path):
    with pytest.raises(SignalError, match="FECG-271"):
        read_recording(write(tmp_path, "rec.dat 16"))


def test_left_out_fields_take_the_defaults_of_the_format():
    header = parse_header("rec 1\nrec.dat 16\n")
    assert (header.rate_hz, header.samples, header.files, header.checksums) == (250, None, ("rec.dat",), (0,))
    channels = header.channels
    assert channels.layouts == ((16, 1, 0, 0),)
    assert (channels.gains, channels.without_gain) == ((0,), 1)
    assert (channels.baselines, channels.units, channels.names) == ((0,), ("mV",), ("",))


def test_lines_of_one_header_may_leave_out_different_fields():
    lines = "rec.dat 16 200/mV 16 5 0 0 0 I\nrec.dat 16 1000(3)\nrec.dat 16+24 2/uV 12 7 0 -9\n"
    header = parse_header("rec 3 500 40\n" + lines)
    channels = header.channels
    assert channels.layouts == ((16, 1, 0, 0), (16, 1, 0, 0), (16, 1, 0, 24))
    assert (channels.gains, channels.baselines) == ((200, 1000, 2), (5, 3, 7))
    assert (channels.units, channels.names) == (("mV", "mV", "uV"), ("I", "", ""))
    assert header.checksums == (0, 0, -9)


def test_every_lead_has_its_own_gain_and_baseline_and_the_next_header_its_own(tmp_path):
    for offset in (0, 7):
        header = write(tmp_path)
        text = header.read_text(encoding="utf-8")
        for number, lead in enumerate(LEADS):
            scale = f"{100 + 10 * number + offset}({number - offset})/mV"
            text = text.replace(f"1000/mV 16 0 0 0 0 {lead}\n", f"{scale} 16 0 0 0 0 {lead}\n")
        header.write_text(text, encoding="utf-8")
        expected = wfdb.rdsamp(str(header.with_suffix("")))[0].T
        np.testing.assert_allclose(read_recording(header).signal_mv, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["rec", "rec.hea", "rec.dat", "rec/", "./rec", "../here/rec.mat"])
def test_a_record_is_found_by_any_of_its_names_from_its_own_folder(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    write(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    np.testing.assert_allclose(read_recording(name).signal_mv, COUNTS.T / 1000, atol=1e-6)
    np.testing.assert_allclose(read_recording(Path(name)).signal_mv, COUNTS.T / 1000, atol=1e-6)


def test_the_missing_value_count_becomes_nan(tmp_path):
    header = write(tmp_path)
    counts = COUNTS.copy()
    counts[3, 4] = counts[39, 11] = -32768
    (tmp_path / "rec.dat").write_bytes(counts.tobytes())
    signal_mv = read_recording(header).signal_mv
    assert np.argwhere(np.isnan(signal_mv)).tolist() == [[4, 3], [11, 39]]


def test_a_matlab_file_is_read_after_its_24_bytes(tmp_path):
    header = write(tmp_path, "rec.mat 16+24 1000/mV 16 0 0 0 0 {lead}")
    (tmp_path / "rec.mat").write_bytes(bytes(24) + COUNTS.tobytes())
    np.testing.assert_allclose(read_recording(header).signal_mv, COUNTS.T / 1000, atol=1e-6)


def test_a_header_without_length_takes_it_from_the_signal_file(tmp_path):
    header = write(tmp_path, record="rec 12 500")
    assert read_recording(header).signal_mv.shape == (12, 40)


def test_samples_after_the_stated_length_are_left_out(tmp_path):
    header = write(tmp_path, record="rec 12 500 30")
    np.testing.assert_allclose(read_recording(header).signal_mv, COUNTS[:30].T / 1000, atol=1e-6)


@pytest.mark.parametrize(
    "record",
    ["rec 12 500/500(0) 40 12:30:00 01/02/2000", "rec 12 500 40 05-May-2020 14:50:55", "rec 12 500.0 40"],
)
def test_counters_times_and_wrong_dates_do_not_matter(tmp_path, record):
    recording = read_recording(write(tmp_path, record=record))
    assert recording.rate_hz == 500.0
    assert recording.signal_mv.shape == (12, 40)


def test_a_micro_sign_in_latin_1_is_understood(tmp_path):
    header = write(tmp_path, "rec.dat 16 1/µV 16 0 0 0 0 {lead}")
    header.write_bytes(header.read_text(encoding="utf-8").encode("latin-1"))
    np.testing.assert_allclose(read_recording(header).signal_mv, COUNTS.T / 1000, atol=1e-6)


def test_right_checksums_pass_and_a_flipped_bit_is_refused(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=3))
    read_recording(header)
    content = bytearray(header.with_suffix(".dat").read_bytes())
    content[1001] ^= 4
    header.with_suffix(".dat").write_bytes(bytes(content))
    with pytest.raises(SignalError, match=r"FECG-206 signal file: found 1 of 12 signals wrong; .*damaged"):
        read_recording(header)


@pytest.mark.parametrize("kept", [0, 1, 24, 12 * 40 * 2 - 1])
def test_a_truncated_signal_file_is_refused(tmp_path, kept):
    header = write(tmp_path)
    (tmp_path / "rec.dat").write_bytes(COUNTS.tobytes()[:kept])
    with pytest.raises(SignalError) as caught:
        read_recording(header)
    assert str(caught.value) == (
        f"FECG-205 signal file: found {kept // 2} counts; expected 480. It is truncated: copy or export it again."
    )


def test_a_header_that_promises_terabytes_is_only_a_truncated_file(tmp_path):
    with pytest.raises(SignalError, match="FECG-205"):
        read_recording(write(tmp_path, record="rec 12 500 99999999999999"))


def test_a_missing_signal_file_is_refused_without_its_name(tmp_path):
    header = write(tmp_path)
    (tmp_path / "rec.dat").unlink()
    with pytest.raises(SignalError, match=r"FECG-204 signal file: found no such file") as caught:
        read_recording(header)
    assert "rec" not in str(caught.value).replace("record", "")


@pytest.mark.parametrize("text", ["rec 0 500 40\n", "rec 1 500 40\n~ 16 1000/mV 16 0 0 0 0 I\n"])
def test_a_header_without_a_signal_file_is_refused(text):
    with pytest.raises(SignalError, match=r"FECG-203 header: found no signal file in it"):
        parse_header(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "rec\n",
        "rec twelve 500 40\n",
        "rec 2 500 40\nrec.dat 16 1000/mV 16 0 0 0 0 I\n",
        "rec 1 fast 40\nrec.dat 16 1000/mV 16 0 0 0 0 I\n",
        "rec 1 500 40\nrec.dat sixteen 1000/mV 16 0 0 0 0 I\n",
        "rec 1 500 40\nrec.dat 16 loud 16 0 0 0 0 I\n",
        "rec 1 500 40\nrec.dat 16 1e-99/mV 16 0 0 0 0 I\n",
        "rec 1 500 40\n../other/rec.dat 16 1000/mV 16 0 0 0 0 I\n",
        "rec 1 500 40\nrec.dat\n",
    ],
)
def test_what_is_no_header_is_refused(text):
    with pytest.raises(SignalError, match=r"FECG-202 header: found a .hea file that reads otherwise"):
        parse_header(text)


@pytest.mark.parametrize("layout", ["212", "16x2", "16:3", "80"])
def test_other_layouts_are_left_to_wfdb(layout):
    assert not is_plain_format16(parse_header(f"rec 1 500 40\nrec.dat {layout} 1000/mV 16 0 0 0 0 I\n"))


def test_signals_in_several_files_are_left_to_wfdb():
    assert not is_plain_format16(parse_header("rec 2 500 40\na.dat 16 1000/mV\nb.dat 16 1000/mV\n"))


def test_physical_units_are_those_of_the_channel(tmp_path):
    header = parse_header(write(tmp_path, "rec.dat 16 1/uV 16 0 0 0 0 {lead}").read_text(encoding="utf-8"))
    np.testing.assert_array_equal(read_format16(tmp_path, header), COUNTS.T)
