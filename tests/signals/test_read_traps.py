"""What files say of themselves that is not so, or not as expected: names, units, gains, gaps, lengths, frames."""

import numpy as np
import pytest
import wfdb

from fedecg.errors import SignalError
from fedecg.signals import LEADS, Recording, assess, read_median, read_recording, recording_from_leads
from fedecg.signals.recording import standard_lead

SIGNAL = np.arange(12 * 40, dtype=np.float64).reshape(12, 40) / 100


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("aVR", "aVR"), ("AVR", "aVR"), (" avr ", "aVR"), ("MDC_ECG_LEAD_AVR", "aVR"), ("Lead aVR", "aVR"),
        ("ECG aVR", "aVR"), ("EKG AVR", "aVR"), ("Lead I", "I"), ("lead ii", "II"), ("DIII", "III"), ("v6", "V6"),
        ("V3R", "V3R"), ("v9", "V9"), ("vz", "VZ"), ("-aVR", "-AVR"),
        ("MLII", ""), ("CM5", ""), ("V", ""), ("ECG 1", ""), ("Resp", ""), ("", ""), ("VI", ""), ("1", ""),
    ],
)  # fmt: skip
def test_a_leads_name_is_known_or_not_guessed(name, lead):
    assert standard_lead(name) == lead


def test_extra_leads_are_left_out_and_named_whatever_their_unit():
    names = ["V4R", *reversed(LEADS), "vx"]
    recording = recording_from_leads(
        np.vstack([SIGNAL[:1], SIGNAL, SIGNAL[:1]]), names, ["adu", *["uV"] * 12, ""], 500
    )
    np.testing.assert_allclose(recording.signal_mv, SIGNAL[::-1] / 1000, rtol=1e-6)
    assert recording.extra_leads == ("V4R", "VX")


def test_eight_leads_and_three_more_become_twelve():
    names = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "V3R", "V4R", "V7"]
    recording = recording_from_leads(SIGNAL[:11], names, ["mV"] * 11, 500)
    np.testing.assert_allclose(recording.signal_mv[2], SIGNAL[1] - SIGNAL[0], rtol=1e-5)
    assert recording.extra_leads == ("V3R", "V4R", "V7")


@pytest.mark.parametrize("unit", ["ADC", "counts", "", "adu", "%"])
def test_counts_without_a_unit_are_refused(unit):
    with pytest.raises(SignalError, match="FECG-207 units: found 12 of 12 leads in an unknown unit"):
        recording_from_leads(SIGNAL, LEADS, [unit] * 12, 500)


@pytest.mark.parametrize(
    ("unit", "factor"), [("MICROVOLTS", 1e-3), ("millivolts", 1.0), ("mv", 1.0), ("\u00b5V", 1e-3)]
)
def test_units_are_converted(unit, factor):
    recording = recording_from_leads(SIGNAL, LEADS, [unit] * 12, 500)
    np.testing.assert_allclose(recording.signal_mv, SIGNAL * factor, rtol=1e-6)


def with_frames(folder, per_frame, names=LEADS, fs=125):
    """A WFDB record with several samples a frame, written by the wfdb package."""
    random = np.random.default_rng(0)
    signal = [np.cumsum(random.integers(-20, 21, 250 * n)) for n in per_frame]
    wfdb.wrsamp(
        "rec", fs=fs, units=["mV"] * len(names), sig_name=list(names), e_d_signal=signal, fmt=["16"] * len(names),
        adc_gain=[1000.0] * len(names), baseline=[0] * len(names), samps_per_frame=list(per_frame),
        write_dir=str(folder),
    )  # fmt: skip
    return folder / "rec.hea", signal


def test_leads_of_several_samples_a_frame_are_read_at_their_own_rate(tmp_path):
    """Their frames are averages: read as wfdb reads them by default, a QRS would be flattened to 125 Hz."""
    header, signal = with_frames(tmp_path, [4] * 12)
    recording = read_recording(header)
    assert (recording.rate_hz, recording.signal_mv.shape) == (500, (12, 1000))
    np.testing.assert_allclose(recording.signal_mv, np.array(signal) / 1000, atol=0.0005)


def test_leads_at_several_rates_are_refused(tmp_path):
    header, _ = with_frames(tmp_path, [4] * 11 + [2])
    with pytest.raises(SignalError) as caught:
        read_recording(header)
    assert str(caught.value) == (
        "FECG-284 WFDB file: found leads at several rates; expected one sampling rate for all leads. "
        "Export the ECG another way."
    )


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_flac_is_read_to_the_count(ecg, write_wfdb, tmp_path, fmt):
    recording = ecg(seconds=4)
    gain = 1000.0 if fmt != "508" else 30.0
    wfdb.wrsamp(
        "flac", fs=500, units=["mV"] * 12, sig_name=list(LEADS), p_signal=recording.signal_mv.T.astype(np.float64),
        fmt=[fmt] * 12, adc_gain=[gain] * 12, baseline=[0] * 12, write_dir=str(tmp_path),
    )  # fmt: skip
    read = read_recording(tmp_path / "flac")
    expected, _ = wfdb.rdsamp(str(tmp_path / "flac"))
    np.testing.assert_allclose(read.signal_mv, expected.T, atol=1e-5)
    np.testing.assert_allclose(read.signal_mv, recording.signal_mv, atol=0.51 / gain + 1e-6)


def test_a_header_without_length_is_read_to_the_end_of_its_file(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4))
    first, *lines = header.read_text().splitlines()
    header.write_text("\n".join([" ".join(first.split()[:3]), *lines]) + "\n")
    assert read_recording(header).signal_mv.shape == (12, 2000)


def test_segments_are_joined_as_wfdb_joins_them(ecg, write_wfdb, tmp_path):
    for name in ("long_1", "long_2"):
        write_wfdb(ecg(seconds=3), name=name)
    (tmp_path / "long.hea").write_text("long/2 12 500 3000\nlong_1 1500\nlong_2 1500\n")
    expected, _ = wfdb.rdsamp(str(tmp_path / "long"))
    np.testing.assert_allclose(read_recording(tmp_path / "long").signal_mv, expected.T, atol=1e-5)


def test_a_gap_between_segments_is_a_gap_in_the_recording(ecg, write_wfdb, tmp_path):
    for name in ("long_1", "long_2"):
        write_wfdb(ecg(seconds=3), name=name)
    layout = [f"~ 0 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    (tmp_path / "long_0.hea").write_text("\n".join(["long_0 12 500 0", *layout]) + "\n")
    (tmp_path / "long.hea").write_text("long/4 12 500 3500\nlong_0 0\nlong_1 1500\n~ 500\nlong_2 1500\n")
    signal = read_recording(tmp_path / "long").signal_mv
    assert np.isnan(signal[:, 1500:2000]).all()
    assert np.isfinite(signal[:, :1500]).all()
    np.testing.assert_allclose(signal[:, 2000:], read_recording(tmp_path / "long_2").signal_mv, atol=1e-5)


def test_a_record_that_declares_more_than_its_files_can_hold_is_refused(tmp_path, ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4), fmt="212")
    header.write_text(header.read_text().replace(" 2000", " 2000000000", 1))
    with pytest.raises(
        SignalError, match=r"FECG-278 WFDB file: found 24000000000 declared samples in \d+ bytes; expect"
    ):
        read_recording(header)


@pytest.mark.parametrize("samples", [5500, 27_000])
def test_long_records_are_read_whole(ecg, write_wfdb, samples):
    recording = read_recording(write_wfdb(ecg(seconds=samples / 500)))
    assert recording.signal_mv.shape == (12, samples)
    assert assess(recording).code == ""


def test_the_smallest_count_is_a_gap(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4))
    words = np.frombuffer(header.with_suffix(".dat").read_bytes(), "<i2").reshape(-1, 12).copy()
    words[100:120, 4] = -32768
    header.with_suffix(".dat").write_bytes(words.tobytes())
    lines = [line.split() for line in header.read_text().splitlines()]
    for line in lines[1:]:
        line[6] = "0"  # no checksum
    header.write_text("\n".join(" ".join(line) for line in lines) + "\n")
    recording = read_recording(header)
    assert np.isnan(recording.signal_mv[4, 100:120]).all()
    assert np.isnan(recording.signal_mv).sum() == 20
    assert assess(recording).counts()["non_finite"] == 1


def test_a_limb_lead_of_half_its_amplitude_breaks_einthovens_law(ecg):
    """As in LUDB-like files, whose stated gain is not that of every lead."""
    recording = ecg()
    signal = recording.signal_mv.copy()
    signal[1] /= 2
    assert assess(Recording(signal, 500)).einthoven[:6].all()
    assert not assess(recording).einthoven.any()


def test_a_gain_of_two_million_is_flagged(ecg, write_wfdb):
    header = write_wfdb(ecg())
    header.write_text(
        header.read_text().replace("1000.0(0)/mV", "2000000/mV").replace("1000(0)/mV", "2000000/mV")
    )
    assert "2000000/mV" in header.read_text()
    assert assess(read_recording(header)).counts()["low_amplitude"] or assess(read_recording(header)).code


def test_a_median_is_no_rhythm_strip(ecg, write_wfdb):
    assert Recording(SIGNAL, 500).kind == "rhythm"
    assert recording_from_leads(SIGNAL, LEADS, ["mV"] * 12, 500, "median").kind == "median"
    with pytest.raises(SignalError, match="FECG-282 WFDB file: found no median beat in it"):
        read_median(write_wfdb(ecg()))
