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
    channel = header.channels[0]
    assert (header.rate_hz, header.samples) == (250.0, None)
    assert (channel.gain, channel.baseline, channel.unit, channel.checksum, channel.name) == (
        0,
        0,
        "mV",
        None,
        "",
    )


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
