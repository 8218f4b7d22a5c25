"""From a file to a `Recording`: finds the header, chooses the reader, refuses what is not a 12-lead ECG.

In:  a path with or without its .hea, .dat or .mat ending, from cohorts and data sets.
Out: `Recording`. 16-bit WFDB goes through `wfdb16` (fast); every other WFDB format goes through the wfdb package.
Only regular files are opened: a pipe among them would keep whoever reads waiting for ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import wfdb

from fedecg.errors import SignalError
from fedecg.files import in_words, read_regular
from fedecg.signals.recording import Recording, recording_from_leads
from fedecg.signals.wfdb16 import Header, is_plain_format16, parse_header, read_format16

__all__ = ["FORMATS", "header_path", "read_recording"]

FORMATS = "WFDB (.hea with .dat), PhysioNet .mat (with .hea)"
_ENDINGS = (".hea", ".dat", ".mat")
# What begins a file of another format -> what users call it, to say that it was understood and is not read.
_DICOM_AT, _SCP_AT = 128, 16
_BEGINNINGS = {b"0       ": "EDF", b"\xffBIOSEMI": "BDF", b"\x89HDF": "HDF5", b"%PDF": "PDF", b"MFER": "MFER"}


def header_path(path: str | Path) -> Path:
    """Where the header of a record lies that is named with or without .hea, .dat or .mat."""
    path = Path(path)
    return path.parent / ((path.stem if path.suffix in _ENDINGS else path.name) + ".hea")


def read_recording(path: str | Path) -> Recording:
    """Read a 12-lead ECG (or its 8 independent leads) stored as WFDB or as PhysioNet .mat with a header.

    Gains are taken as the header states them; one that states none is refused.

    Args:
        path: the record, with or without .hea, .dat or .mat.

    Raises:
        SignalError: FECG-201..206 the files, FECG-207..211 units, leads and rate, FECG-212 the wfdb package
            cannot read it either, FECG-271 no gain, FECG-273 another format, FECG-274 a folder. No message names the
            file: a path may hold a patient's id.
    """
    at = header_path(path)
    header = parse_header(_header_text(at, Path(path)))
    _refuse_uncalibrated(header)
    if not is_plain_format16(header):
        return _read_with_wfdb(at, header)
    signal = read_format16(at.parent, header)
    names = [channel.name for channel in header.channels]
    return recording_from_leads(signal, names, [channel.unit for channel in header.channels], header.rate_hz)


def _header_text(path: Path, given: Path) -> str:
    try:
        content = read_regular(path)
    except FileNotFoundError as error:
        raise _without_header(given, error) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _unreadable(in_words(error)) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # older tools write the micro sign in Latin-1
        return content.decode("latin-1")


def _without_header(given: Path, error: FileNotFoundError) -> SignalError:
    """What there is instead of a record with a header."""
    if given.is_dir():
        return SignalError(
            "FECG-274",
            "record",
            found="a folder",
            expected="a record in it",
            fix="Name the records: FOLDER/*.hea",
        )
    if not given.is_file():
        return _unreadable(in_words(error))
    if given.suffix in _ENDINGS:
        return _unreadable("a signal file without its header")
    return SignalError(
        "FECG-273",
        "record",
        found=_other_format(given),
        expected=FORMATS,
        fix="Export or convert the ECG to one of these.",
    )


def _unreadable(found: str) -> SignalError:
    return SignalError(
        "FECG-201",
        "header",
        found=found,
        expected="a readable .hea file",
        fix="Check the path of the record.",
    )


def _other_format(path: Path) -> str:
    """What a file that is no WFDB record looks like."""
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_AT + 4)
    except OSError as error:
        return in_words(error)
    if start[_DICOM_AT:] == b"DICM":
        return "a DICOM file"
    if start[_SCP_AT : _SCP_AT + 6] == b"SCPECG":
        return "an SCP-ECG file"
    # In UTF-8 or UTF-16, with or without a byte order mark.
    if start.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t\0")[:1] == b"<":
        return "an XML file"
    named = (
        f"a file in format {name}" for beginning, name in _BEGINNINGS.items() if start.startswith(beginning)
    )
    return next(named, "a file in another format")


def _refuse_uncalibrated(header: Header) -> None:
    without = sum(not channel.gain for channel in header.channels)
    if without:
        raise SignalError(
            "FECG-271",
            "gain",
            found=f"{without} of {len(header.channels)} leads without one (0, or left out: not calibrated)",
            expected="counts per mV of every lead",
            fix="Write the recorder's gain into the header, e.g. 1000/mV, or export the record again.",
        )


def _read_with_wfdb(at: Path, header: Header) -> Recording:
    absent = sum(not (at.parent / name).is_file() for name in _files(at.parent, header))
    if absent:
        raise SignalError(
            "FECG-204",
            "signal file",
            found=f"{absent} file(s) missing, or a pipe or folder",
            expected="the files that the header names, beside the header",
            fix="Copy the signal files together with their header.",
        )
    try:
        record = wfdb.rdrecord(str(at.with_suffix("")))
        signal = np.asarray(record.p_signal, dtype=np.float64).T
        names, units, rate_hz = list(record.sig_name), list(record.units), float(record.fs)
    except Exception:  # wfdb raises whatever its parsers meet
        raise SignalError(
            "FECG-212",
            "signal file",
            found="one that the wfdb package fails on",
            expected="a WFDB record that it can read",
            fix="Convert the record to WFDB format 16.",
        ) from None
    return recording_from_leads(signal, [name or "" for name in names], units, rate_hz)


def _files(folder: Path, header: Header) -> set[str]:
    """Names of all files that wfdb would open: signals, and headers and signals of segments."""
    names = {channel.file for channel in header.channels}
    for segment in set(header.segment_names) - {"~"}:
        names.add(f"{segment}.hea")
        if (folder / f"{segment}.hea").is_file():
            text = (folder / f"{segment}.hea").read_text(encoding="latin-1")
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            names |= {line.split()[0] for line in lines[1:]}
    return names - {"~"}
