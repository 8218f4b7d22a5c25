"""DICOM, SCP-ECG and EDF: values against the words in the file, traps of each, and broken files."""

import os

import numpy as np
import pytest
from writers_vendor import EIGHT, dicom, edf, rows_of, whole_counts

from fedecg.errors import SignalError
from fedecg.signals import LEADS, read_median, read_recording

COUNTS = whole_counts()
CODES = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{n}": n + 2 for n in range(1, 7)}
MDC = [(f"2:{CODES[lead]}", f"Lead {lead}") for lead in LEADS]
NAMED = [("x", f"Lead {lead} (Einthoven)") for lead in LEADS]


def refusal(path, read=read_recording) -> str:
    with pytest.raises(SignalError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("names", [MDC, NAMED, [(f"MDC_ECG_LEAD_{lead.upper()}", "") for lead in LEADS]])
def test_dicom_knows_leads_by_code_or_by_meaning(tmp_path, names):
    recording = read_recording(dicom(COUNTS, names, tmp_path / "x.dcm"))
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.005, atol=1e-5)
    assert recording.rate_hz == 500


def test_dicom_applies_sensitivity_correction_and_baseline(tmp_path):
    path = dicom(COUNTS, MDC, tmp_path / "x", unit="uV", sensitivity="2.5", correction="2", baseline="-100")
    np.testing.assert_allclose(read_recording(path).signal_mv, (COUNTS - 100) * 0.005, atol=1e-4)


def test_dicom_zero_is_a_voltage_and_the_smallest_count_is_a_gap(tmp_path):
    counts = COUNTS.copy()
    counts[:, 10], counts[3, 20] = 0, -32768
    signal = read_recording(dicom(counts, MDC, tmp_path / "x")).signal_mv
    assert (signal[:, 10] == 0).all()
    assert np.isnan(signal[3, 20])
    assert np.isnan(signal).sum() == 1


def test_a_15_lead_file_gives_the_twelve_and_names_the_rest(tmp_path):
    more = [("2:11", "Lead V3R"), ("2:9", "Lead V7"), ("2:66", "Lead V8")]
    recording = read_recording(dicom(np.vstack([COUNTS[:3] * 0 + 7, COUNTS]), more + MDC, tmp_path / "x"))
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.005, atol=1e-5)
    assert recording.extra_leads == ("V3R", "V7", "V8")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"sensitivity": None},
            "FECG-271 DICOM file: found channels without sensitivity or unit; expected the amplitude",
        ),
        ({"unit": "mm[Hg]"}, "FECG-284 DICOM file: found a sensitivity in another unit than volts"),
        ({"correction": "0"}, "FECG-271 DICOM file: found channels whose counts amount to nothing"),
        ({"label": "MEDIAN BEAT"}, "FECG-282 DICOM file: found no rhythm strip"),
        (
            {"names": [*MDC[:-1], ("2:19", "Lead CC5")]},
            "FECG-208 leads: found 1 of 12 leads with an unknown name",
        ),
    ],
)
def test_dicom_that_is_not_as_it_should_be_is_refused(tmp_path, change, text):
    names = change.pop("names", MDC)
    assert refusal(dicom(COUNTS, names, tmp_path / "x", **change)).startswith(text)


def test_a_cut_or_deflated_dicom_file_is_refused(tmp_path):
    path = dicom(COUNTS, MDC, tmp_path / "x")
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000])
    assert refusal(path).startswith("FECG-277 ")
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    assert refusal(path).startswith(
        "FECG-284 DICOM file: found a deflated file; expected an uncompressed transfer syntax"
    )


def test_reading_dicom_prints_nothing_of_the_patient(data_root, capfd, recwarn):
    read_recording(data_root / "vendor/ecgtoolkit/Example.dcm")  # whose ids pydicom warns of, dates and all
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.fixture
def scp(data_root):
    return bytearray((data_root / "vendor/ecgtoolkit/Example.scp").read_bytes())


def with_checksum(content: bytearray) -> bytes:
    value = 0xFFFF  # CRC-CCITT, bit by bit: not the function that the reader uses
    for letter in content[2:]:
        value ^= letter << 8
        for _ in range(8):
            value = ((value << 1) ^ (0x1021 if value & 0x8000 else 0)) & 0xFFFF
    return value.to_bytes(2, "little") + bytes(content[2:])


def test_an_altered_scp_file_misses_its_checksum(tmp_path, scp):
    assert with_checksum(scp) == scp
    scp[20_000] ^= 1
    (tmp_path / "x.scp").write_bytes(scp)
    assert refusal(tmp_path / "x.scp") == (
        "FECG-206 SCP-ECG file: found a checksum that is not that of the file; expected the sum that its writer stored"
        ". It is damaged: copy or export it again."
    )


def section(content: bytearray, number: int) -> int:
    """Where the content of a section begins."""
    return int.from_bytes(content[22 + 10 * number + 6 :][:4], "little") - 1 + 16


@pytest.mark.parametrize(
    ("number", "offset", "value", "text"),
    [
        (3, 6, b"\xff\xff\xff\x7f", "FECG-278 SCP-ECG file: found 12 leads of up to 2147483647 samples"),
        (3, 0, b"\xff", "FECG-278 SCP-ECG file: found"),
        (4, 4, b"\xff\xff", "FECG-278 SCP-ECG file: found more beats than an ECG has"),
        (6, 0, b"\0\0", "FECG-277 SCP-ECG file: found"),
        (6, 2, b"\0\0", "FECG-277 SCP-ECG file: found content that its reader fails on"),
    ],
)
def test_an_scp_file_that_declares_what_it_does_not_hold_is_refused(
    tmp_path, scp, number, offset, value, text
):
    at = section(scp, number) + offset
    scp[at : at + len(value)] = value
    (tmp_path / "x.scp").write_bytes(with_checksum(scp))
    assert refusal(tmp_path / "x.scp").startswith(text)


def test_a_cut_scp_file_is_refused(tmp_path, scp):
    (tmp_path / "x.scp").write_bytes(scp[:9000])
    assert refusal(tmp_path / "x.scp").startswith(f"FECG-277 SCP-ECG file: found 9000 bytes of {len(scp)}")


def test_edf_equals_its_words(tmp_path):
    (tmp_path / "x").write_bytes(edf(COUNTS, [f"ECG {lead}" for lead in LEADS]))
    recording = read_recording(tmp_path / "x")
    words = np.frombuffer((tmp_path / "x").read_bytes(), "<i2", offset=256 * 13).reshape(4, 12, 500)
    by_hand = (words.transpose(1, 0, 2).reshape(12, -1).astype(float) + 32768) * (
        131070 / 65535
    ) - 65536  # uV
    np.testing.assert_allclose(recording.signal_mv, by_hand / 1000, atol=1e-5)
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.002, atol=1e-5)
    assert recording.rate_hz == 500


def test_edf_passes_over_what_is_no_lead(tmp_path):
    counts = np.vstack([COUNTS, COUNTS[:2]])
    content = bytearray(edf(counts, [*LEADS, "EDF Annotations", "Resp"]))
    units = 256 + 96 * 14 + 8 * 12
    content[units : units + 16] = b"        Ohm     "
    (tmp_path / "x").write_bytes(content)
    np.testing.assert_allclose(read_recording(tmp_path / "x").signal_mv, COUNTS * 0.002, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            edf(COUNTS, reserved="EDF+D"),
            "FECG-284 EDF file: found a recording with gaps (EDF+D); expected one without",
        ),
        (
            edf(COUNTS, rates_hz=[500] * 11 + [250]),
            "FECG-284 EDF file: found leads at several rates; expected one",
        ),
        (edf(COUNTS, unit="adu"), "FECG-207 units: found 12 of 12 leads in an unknown unit"),
        (edf(COUNTS, [*LEADS[:-1], "ECG 12"]), "FECG-208 leads: found 1 of 12 leads with an unknown name"),
        (
            edf(COUNTS, unit="", labels=["Resp"] * 12),
            "FECG-277 EDF file: found no lead of an ECG with samples",
        ),
        (edf(COUNTS)[:-5000], "FECG-277 EDF file: found 43000 bytes of samples where 48000 are stated"),
        (
            edf(COUNTS).replace(b"-65536  ", b"65534   "),
            "FECG-271 EDF file: found signals whose range is empty",
        ),
        (edf(COUNTS).replace(b"500     ", b"-500    "), "FECG-277 EDF file: found"),
        (
            edf(COUNTS)[:252] + b"9999" + edf(COUNTS)[256:],
            "FECG-277 EDF file: found a header that reads otherwise",
        ),
        (b"0       X X", "FECG-277 EDF file: found a header that reads otherwise"),
    ],
)
def test_edf_that_is_not_as_it_should_be_is_refused(tmp_path, content, text):
    (tmp_path / "x").write_bytes(content)
    assert refusal(tmp_path / "x").startswith(text)


def test_eight_leads_of_edf_become_twelve(tmp_path):
    (tmp_path / "x").write_bytes(edf(rows_of(COUNTS, EIGHT), EIGHT))
    np.testing.assert_allclose(read_recording(tmp_path / "x").signal_mv, COUNTS * 0.002, atol=0.0021)


def test_edf_holds_no_median_beat(tmp_path):
    (tmp_path / "x").write_bytes(edf(COUNTS))
    assert refusal(tmp_path / "x", read_median).startswith("FECG-282 EDF file: found no median beat in it")


def test_pipes_of_any_name_are_refused_at_once(tmp_path):
    for name in ("x.xml", "x.h5", "x"):
        os.mkfifo(tmp_path / name)
        assert refusal(tmp_path / name).startswith("FECG-201 header: found a pipe or device, not a file")


@pytest.mark.parametrize(
    ("module", "content"),
    [
        ("pydicom", None),
        ("edfio", edf(COUNTS)),
        ("h5py", b"\x89HDF\r\n\x1a\n"),
        ("defusedxml", b"<RestingECG/>"),
    ],
)
def test_a_format_whose_package_is_absent_says_how_to_install_it(tmp_path, monkeypatch, module, content):
    path = tmp_path / "x"
    if content is None:
        dicom(COUNTS, MDC, path)
    else:
        path.write_bytes(content)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    assert (
        "found no package that reads it; expected the packages of the extra vendors. pip install 'fedecg[ven"
        in (refusal(path))
    )
