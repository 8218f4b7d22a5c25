"""`read_recording` on real files against wfdb, on the formats that wfdb reads for us, and on what is no ECG."""

import os
from pathlib import Path

import numpy as np
import pytest
import wfdb

from fedecg.errors import SignalError
from fedecg.signals import LEADS, Recording, assess, read_recording

# A sample of each published set: path of the records below the data folder, and how many to compare.
PUBLISHED = {
    "ptbxl/records100": 40,
    "ptbxl/records500": 10,
    "cinc2021": 10,
    "code15_wfdb": 40,
}


def headers(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.hea"))
    assert found
    return found


def equals_wfdb(header: Path) -> bool:
    recording = read_recording(header)
    expected, fields = wfdb.rdsamp(str(header.with_suffix("")))
    order = [[lead.lower() for lead in fields["sig_name"]].index(lead.lower()) for lead in LEADS]
    same = np.allclose(recording.signal_mv, expected.T[order], atol=1e-5, rtol=1e-6, equal_nan=True)
    return same and recording.signal_mv.shape == expected.T[order].shape and recording.rate_hz == fields["fs"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_records_equal_wfdb_within_a_quantisation_step(data_root, name):
    found = headers(data_root / name)
    chosen = found[:: max(1, len(found) // PUBLISHED[name])]
    assert [header for header in chosen if not equals_wfdb(header)] == []


@pytest.mark.slow
def test_every_published_record_that_wfdb_reads_equals_it(data_root):
    """All but four headers of the first release, whose dates wfdb refuses: 737 of 741."""
    found = [header for name in PUBLISHED for header in headers(data_root / name)]
    assert [header for header in found if not equals_wfdb(header)] == []
    refused = 0
    for header in headers(data_root / "cinc2020"):
        try:
            wfdb.rdheader(str(header.with_suffix("")))
        except ValueError:
            refused += 1
        else:
            assert equals_wfdb(header)
    assert (len(found), refused) == (713, 4)


def test_first_release_headers_whose_dates_wfdb_refuses_are_read(data_root):
    for header in headers(data_root / "cinc2020"):
        recording = read_recording(header)
        assert recording.rate_hz in (257, 500, 1000)
        assert np.isfinite(recording.signal_mv).all()


def test_every_published_12_lead_record_is_read(data_root):
    found = [header for name in (*PUBLISHED, "cinc2020") for header in headers(data_root / name)]
    assert len(found) == 741
    assert all(isinstance(read_recording(header), Recording) for header in found)


def test_what_is_no_12_lead_ecg_is_refused_with_a_code(data_root):
    for header in headers(data_root / "wfdb_odd"):
        with pytest.raises(SignalError) as caught:
            read_recording(header)
        assert caught.value.code in ("FECG-204", "FECG-207", "FECG-208", "FECG-212")
        assert header.stem not in str(caught.value)


@pytest.mark.parametrize("ending", ["", ".hea", ".dat", ".mat"])
def test_the_ending_of_the_path_does_not_matter(ecg, write_wfdb, ending):
    header = write_wfdb(ecg(seconds=3), name="rec")
    assert read_recording(str(header.with_suffix("")) + ending).signal_mv.shape == (12, 1500)


def test_a_dot_in_the_name_is_part_of_the_name(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=3), name="rec")
    text = header.read_text()
    (header.parent / "rec.v2.hea").write_text(text)
    assert read_recording(header.parent / "rec.v2").signal_mv.shape == (12, 1500)


@pytest.mark.parametrize("fmt", ["212", "24", "32"])
def test_other_formats_come_through_wfdb(ecg, write_wfdb, fmt):
    recording = ecg(seconds=4)
    read = read_recording(write_wfdb(recording, fmt=fmt))
    np.testing.assert_allclose(read.signal_mv, recording.signal_mv, atol=0.0051)


def test_eight_stored_leads_become_twelve(ecg, write_wfdb):
    recording = ecg(seconds=4)
    eight = tuple(lead for lead in LEADS if lead not in ("III", "aVR", "aVL", "aVF"))
    read = read_recording(write_wfdb(recording, leads=eight))
    np.testing.assert_allclose(read.signal_mv, recording.signal_mv, atol=0.0011)
    assert not assess(read).einthoven.any()


def test_a_record_with_a_missing_lead_is_refused(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4), leads=LEADS[:-1])
    with pytest.raises(SignalError, match=r"FECG-210 leads: found 11 of 12 leads, without V6"):
        read_recording(header)


@pytest.mark.parametrize("path", ["", "absent", "12345678.hea"])
def test_a_missing_record_is_refused_without_its_path(tmp_path, path):
    with pytest.raises(
        SignalError, match=r"FECG-201 header: found no such file; expected a readable .hea file"
    ) as caught:
        read_recording(tmp_path / "patient-12345678" / path)
    assert "12345678" not in str(caught.value)


def test_a_file_of_another_format_that_is_missing_is_refused(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4), fmt="212")
    header.with_suffix(".dat").unlink()
    with pytest.raises(SignalError, match=r"FECG-204 signal file: found 1 file\(s\) missing"):
        read_recording(header)


def test_what_wfdb_cannot_read_is_refused_without_the_packages_words(ecg, write_wfdb):
    header = write_wfdb(ecg(seconds=4), name="smith", fmt="212")
    header.with_suffix(".dat").write_bytes(b"123456")
    with pytest.raises(
        SignalError, match=r"FECG-212 signal file: found one that the wfdb package fails on"
    ) as caught:
        read_recording(header)
    assert "smith" not in str(caught.value)


def test_a_multi_segment_header_without_its_segments_is_refused(tmp_path):
    (tmp_path / "long.hea").write_text("long/2 12 500 2000\nlong_1 1000\nlong_2 1000\n")
    with pytest.raises(SignalError, match=r"FECG-204 signal file: found 2 file\(s\) missing"):
        read_recording(tmp_path / "long")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xffBIOSEMI X X", "a file in format BDF"),
        (b"%PDF-1.7", "a file in format PDF"),
        (b"12,13\n", "a file in another format"),
        (b"", "a file in another"),
    ],
)
def test_any_other_file_is_of_another_format_too(tmp_path, content, kind):
    (tmp_path / "smith.edf").write_bytes(content)
    with pytest.raises(SignalError, match=f"FECG-273 record: found {kind}") as caught:
        read_recording(tmp_path / "smith.edf")
    assert "smith" not in str(caught.value)


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(SignalError, match=r"FECG-274 record: found a folder; expected a record in it\. Name"):
        read_recording(tmp_path)


@pytest.mark.parametrize("ending", [".dat", ".mat"])
def test_a_signal_file_without_its_header_is_said(tmp_path, ending):
    (tmp_path / f"rec{ending}").write_bytes(b"1234")
    with pytest.raises(SignalError, match="FECG-201 header: found a signal file without its header"):
        read_recording(tmp_path / f"rec{ending}")


def test_pipes_in_place_of_files_are_refused_at_once(tmp_path, ecg, write_wfdb):
    os.mkfifo(tmp_path / "pipe.hea")
    with pytest.raises(SignalError, match="FECG-201 header: found a pipe or device, not a file"):
        read_recording(tmp_path / "pipe")
    for fmt in ("16", "212"):
        header = write_wfdb(ecg(seconds=4), name=f"rec{fmt}", fmt=fmt)
        header.with_suffix(".dat").unlink()
        os.mkfifo(header.with_suffix(".dat"))
        with pytest.raises(SignalError, match=r"FECG-204 signal file: found .*pipe"):
            read_recording(header)


def test_a_pipe_among_the_segments_is_refused_at_once(tmp_path):
    (tmp_path / "long.hea").write_text("long/2 12 500 2000\nlong_1 1000\nlong_2 1000\n")
    (tmp_path / "long_1.hea").write_text("long_1 1 500 1000\nlong_1.dat 16 1000/mV 16 0 0 0 0 I\n")
    os.mkfifo(tmp_path / "long_1.dat")
    os.mkfifo(tmp_path / "long_2.hea")
    with pytest.raises(SignalError, match="FECG-204 signal file: found 2 file"):
        read_recording(tmp_path / "long")


def test_a_link_to_a_file_is_read_as_the_file(ecg, write_wfdb, tmp_path):
    header = write_wfdb(ecg(seconds=4))
    (tmp_path / "link.hea").symlink_to(header)
    assert read_recording(tmp_path / "link").signal_mv.shape == (12, 2000)
