"""From a file to a `Recording`: finds the header, chooses the reader, refuses what is not a 12-lead ECG.

In:  a path with or without its .hea, .dat or .mat ending, from cohorts and data sets.
Out: `Recording`. 16-bit WFDB goes through `wfdb16` (fast); every other WFDB format goes through the wfdb package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import wfdb

from fedecg.errors import SignalError
from fedecg.signals.recording import Recording, recording_from_leads
from fedecg.signals.wfdb16 import Header, is_plain_format16, parse_header, read_format16

__all__ = ["read_recording"]

_ENDINGS = (".hea", ".dat", ".mat")


def read_recording(path: str | Path) -> Recording:
    """Read a 12-lead ECG (or its 8 independent leads) stored as WFDB or as PhysioNet .mat with a header.

    Gains are taken as the header states them.

    Args:
        path: the record, with or without .hea, .dat or .mat.

    Raises:
        SignalError: FECG-201..206 the files, FECG-207..211 units, leads and rate, FECG-212 the wfdb package
            cannot read it either. No message names the file: a path may hold a patient's id.
    """
    path = Path(path)
    header_path = path.parent / ((path.stem if path.suffix in _ENDINGS else path.name) + ".hea")
    header = parse_header(_header_text(header_path))
    if not is_plain_format16(header):
        return _read_with_wfdb(header_path, header)
    signal = read_format16(header_path.parent, header)
    names = [channel.name for channel in header.channels]
    return recording_from_leads(signal, names, [channel.unit for channel in header.channels], header.rate_hz)


def _header_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise SignalError(
            "FECG-201",
            "header",
            found=type(error).__name__,
            expected="a readable .hea file",
            fix="Check the path of the record.",
        ) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # older tools write the micro sign in Latin-1
        return content.decode("latin-1")


def _read_with_wfdb(header_path: Path, header: Header) -> Recording:
    missing = {
        channel.file for channel in header.channels if not (header_path.parent / channel.file).is_file()
    }
    if missing:
        raise SignalError(
            "FECG-204",
            "signal file",
            found=f"{len(missing)} file(s) missing",
            expected="the files that the header names, beside the header",
            fix="Copy the signal files together with their header.",
        )
    try:
        record = wfdb.rdrecord(str(header_path.with_suffix("")))
        signal = np.asarray(record.p_signal, dtype=np.float64).T
        names, units, rate_hz = list(record.sig_name), list(record.units), float(record.fs)
    except Exception as error:  # wfdb raises whatever its parsers meet
        raise SignalError(
            "FECG-212",
            "signal file",
            found=f"{type(error).__name__} in the wfdb package",
            expected="a WFDB record that it can read",
            fix="Convert the record to WFDB format 16.",
        ) from None
    return recording_from_leads(signal, [name or "" for name in names], units, rate_hz)
