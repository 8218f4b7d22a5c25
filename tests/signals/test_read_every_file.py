"""Every ECG file of the test data: read, and equal to a second reader's values, or refused with the right code."""

import numpy as np
import pydicom
import pytest
import scipy.io
import sierraecg
import wfdb
from ecgdatakit import FileParser

from fedecg.errors import SignalError
from fedecg.signals import LEADS, assess, formats, header_path, read_median, read_recording

# Folder -> ECGs in it that are read.
READ = {"ptbxl": 393, "cinc2021": 10, "cinc2020": 28, "code15": 5, "code15_wfdb": 310}
VENDOR = {
    "ecgtoolkit/Example.dcm": "",
    "ecgtoolkit/Example.scp": "",
    "hl7aecg/hl7aecg_example.xml": "",
    "philips_sierra/ad4d3d80-d165_1-04_orig.xml": "",
    "philips_sierra/repbeats_example.xml": "",
    "philips_sierra/invalid-doc-type.xml": "FECG-284",  # of another vendor, as it says itself
    # Lead II alone.
    "fda_aecg/minimum_aecg.xml": "FECG-210",
    "fda_aecg/minimum_aecg_effectiveTime_high.xml": "FECG-210",
    "fda_aecg/minimum_aecg_effectiveTime_interval.xml": "FECG-210",
    "fda_aecg/minimum_aecg_effectiveTime_low.xml": "FECG-210",
    "fda_aecg/minimum_aecg_nouuid.xml": "FECG-210",
}
# No 12-lead ECG among them: two to four leads, an EEG, signals whose files are not there.
ODD = {
    "100-no-len": "FECG-204",
    "100": "FECG-204",
    "100_3chan": "FECG-204",
    "3000003_0003": "FECG-208",  # lead "V"
    "drive02": "FECG-204",
    "flacformats": "FECG-208",
    "mixedsignals": "FECG-208",
    "n16": "FECG-204",
    "test01_00s": "FECG-208",  # "ECG 1"
    "test01_00s_frame": "FECG-208",
    "test01_00s_skew": "FECG-208",
    "test01_00s_skewframe": "FECG-208",
}


def ecg_files(folder):
    found = [
        path for path in sorted(folder.rglob("*")) if path.suffix in (".hea", ".mat", ".xml", ".scp", ".dcm")
    ]
    return [path for path in found if path.suffix != ".mat" or not header_path(path).exists()]


def einthoven(signal_mv):
    one, two, three, avr, avl, avf = signal_mv[:6].astype(np.float64)
    misses = [two - one - three, avr + (one + two) / 2, avl - one + two / 2, avf - two + one / 2]
    return max(float(np.nanmax(np.abs(miss))) for miss in misses)


@pytest.mark.parametrize("folder", READ)
def test_every_record_of_a_public_set_is_read(data_root, folder):
    recordings = [read_recording(path) for path in ecg_files(data_root / folder)]
    assert len(recordings) == READ[folder]
    assert {recording.kind for recording in recordings} == {"rhythm"}
    assert {recording.signal_mv.shape[0] for recording in recordings} == {12}


def test_every_vendors_file_is_read_or_refused_with_its_code(data_root):
    found = ecg_files(data_root / "vendor")
    assert {path.relative_to(data_root / "vendor").as_posix() for path in found} == set(VENDOR)
    assert {name: code_of(data_root / "vendor" / name) for name in VENDOR} == VENDOR


def test_every_odd_wfdb_file_is_refused_with_its_code(data_root):
    assert {path.stem: code_of(path) for path in ecg_files(data_root / "wfdb_odd")} == ODD


def code_of(path):
    """The code of a refusal, "" of a file that is read; "named" where the refusal names the file."""
    try:
        read_recording(path)
    except SignalError as error:
        return error.code if path.stem not in str(error) else "named"
    return ""


def test_first_release_headers_equal_wfdb_once_their_dates_are_left_out(data_root, tmp_path):
    """Georgia's date makes wfdb raise; their counts are microvolts whatever gain they state."""
    for header in sorted((data_root / "cinc2020").glob("*.hea")):
        first, *lines = header.read_text().splitlines()
        plain = " ".join([header.stem, *first.split()[1:4]])  # some call the record E00009.mat, too
        (tmp_path / header.name).write_text("\n".join([plain, *lines]) + "\n")
        (tmp_path / f"{header.stem}.mat").symlink_to(header.with_suffix(".mat"))
        expected, fields = wfdb.rdsamp(str(tmp_path / header.stem))
        recording = read_recording(header)
        np.testing.assert_allclose(recording.signal_mv, expected.T, atol=1e-5, rtol=1e-6)
        assert fields["fs"] == recording.rate_hz


def test_gains_that_are_not_gains_are_flagged_by_their_amplitudes(data_root):
    """Counts of 1 µV under 4880/mV are a fifth of an ECG, under 200/mV five ECGs."""
    told = {}
    for header in sorted((data_root / "cinc2020").glob("*.hea")):
        gain = header.read_text().splitlines()[1].split()[2]
        quality = assess(read_recording(header))
        told.setdefault(gain, []).append(
            bool(quality.low_amplitude or quality.high_amplitude.any() or quality.code)
        )
    flagged = {gain: (len(found), sum(found)) for gain, found in told.items()}
    assert flagged == {"4880/mV": (4, 4), "200/mV": (2, 2), "1000/mV": (22, 0)}


def test_code15_as_matlab_equals_scipy(data_root):
    files = ecg_files(data_root / "code15")
    for path in files:
        recording = read_recording(path)
        np.testing.assert_array_equal(recording.signal_mv, scipy.io.loadmat(path)["feats"])
        assert recording.rate_hz == 400


@pytest.mark.parametrize("name", ["ad4d3d80-d165_1-04_orig.xml", "repbeats_example.xml"])
def test_sierra_equals_sierraecg_and_ecgdatakit_up_to_the_calibration_pulse(data_root, name):
    path = data_root / "vendor" / "philips_sierra" / name
    recording, beat = read_recording(path), read_median(path)
    read = sierraecg.read_file(str(path), include_repbeats=True)
    other = FileParser.parse(path)
    samples = recording.signal_mv.shape[1]
    assert 5250 <= samples <= 5300 < len(read.leads[0].samples) == 5500
    for lead, row in zip(read.leads, recording.signal_mv, strict=True):
        np.testing.assert_allclose(row, lead.samples[:samples] * 0.005, atol=1e-5)
        assert 1.0 in np.round(lead.samples[samples:] * 0.005, 6)  # the pulse that was cut off
    for lead, row in zip(other.leads, recording.signal_mv, strict=True):
        np.testing.assert_allclose(row, lead.samples[:samples], atol=1e-5)
    assert recording.signal_mv[0].max() < 0.95
    assert (
        einthoven(recording.signal_mv) <= 0.0151
    )  # III and the augmented leads are rounded to counts of 5 µV
    assert beat.kind == "median"
    for lead, row in zip(LEADS, beat.signal_mv, strict=True):
        stored = read.repbeats[lead]
        within = stored.samples != 32767
        np.testing.assert_allclose(row[within], stored.samples[within] * stored.resolution / 1000, atol=1e-5)
        assert np.isnan(row[~within]).all()


def test_aecg_equals_ecgdatakit(data_root):
    path = data_root / "vendor" / "hl7aecg" / "hl7aecg_example.xml"
    record = FileParser.parse(path)
    for recording, leads in ((read_recording(path), record.leads), (read_median(path), record.median_beats)):
        expected = {lead.label: lead.samples for lead in leads}
        for lead, row in zip(LEADS, recording.signal_mv, strict=True):
            np.testing.assert_allclose(row, expected[lead], atol=1e-5)
        assert recording.rate_hz == 100
    assert assess(read_recording(path)).einthoven[:6].all()  # an example that a simulator filled: no heart


def test_scp_and_dicom_of_one_ecg_are_the_same_to_a_count(data_root):
    folder = data_root / "vendor" / "ecgtoolkit"
    packed, plain = read_recording(folder / "Example.scp"), read_recording(folder / "Example.dcm")
    np.testing.assert_allclose(packed.signal_mv, plain.signal_mv, atol=1e-5)
    beat, other = read_median(folder / "Example.scp"), read_median(folder / "Example.dcm")
    np.testing.assert_allclose(beat.signal_mv, other.signal_mv[:, :599], atol=1e-5)
    assert np.isnan(other.signal_mv[:, 599]).all()  # -32768
    assert einthoven(plain.signal_mv) <= 0.0051
    assert not np.isnan(plain.signal_mv).any()  # whose padding value is 0


def test_dicom_equals_its_words(data_root):
    path = data_root / "vendor" / "ecgtoolkit" / "Example.dcm"
    group = pydicom.dcmread(path).WaveformSequence[0]
    words = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T * 2.5e-3
    order = [LEADS.index(c.ChannelSourceSequence[0].CodeMeaning[5:]) for c in group.ChannelDefinitionSequence]
    np.testing.assert_allclose(read_recording(path).signal_mv[order], words, atol=1e-6)
    scaled = pydicom.waveforms.multiplex_array(pydicom.dcmread(path), 0, as_raw=False)
    np.testing.assert_allclose(scaled.T, words * 1000, atol=1e-9)  # in uV


def test_lead_algebra_holds_in_what_real_cardiographs_measured(data_root):
    misses = [einthoven(read_recording(path).signal_mv) for path in ecg_files(data_root / "ptbxl")[::8]]
    assert max(misses) <= 0.0151
    assert len(misses) == 50


def test_a_file_of_another_format_is_told_what_is_read(tmp_path):
    (tmp_path / "smith.xyz").write_bytes(b"12,13\n")
    with pytest.raises(SignalError) as caught:
        read_recording(tmp_path / "smith.xyz")
    assert str(caught.value) == (
        "FECG-273 record: found a file in another format; expected WFDB (.hea with .dat), PhysioNet .mat (with .hea), "
        "CardioSoft XML, GE MUSE XML, Philips Sierra XML, HL7 aECG, SCP-ECG, DICOM, EDF, HDF5 of CODE-15 % and SPH, "
        "CSV, Parquet and NumPy that state rate, unit and leads. Export or convert the ECG to one of these."
    )
    assert all(name in str(caught.value) for name in formats())
