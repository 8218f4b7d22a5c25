"""WFDB and PhysioNet .mat: the plain 16-bit files through `wfdb16`, every other WFDB format through the wfdb package.

In:  a header's place and its bytes. Out: `Recording`. Called by `reading`. Gains are taken as the header states them;
one that states none is refused. Files are looked for beside the header and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fedecg.errors import SignalError
from fedecg.signals.faults import other_variant, refuse_beyond
from fedecg.signals.recording import Recording, recording_from_leads, standard_lead
from fedecg.signals.wfdb16 import Header, is_plain_format16, parse_header, read_format16

__all__ = ["NAME", "read_wfdb"]

NAME = "WFDB"


def read_wfdb(at: str, content: bytes) -> Recording:
    """The recording that a header describes.

    Args:
        at: the header's path, as text: a `Path` takes as long to take apart as a header. content: of the header.

    Raises:
        SignalError: FECG-202..206 the files, FECG-207..211 units, leads and rate, FECG-212 the wfdb package cannot read
            it either, FECG-271 no gain, FECG-278 larger than its files, FECG-284 leads at several rates.
    """
    header = parse_header(_decoded(content))
    _refuse_uncalibrated(header)
    if not is_plain_format16(header):
        return _read_with_package(Path(at), header)
    signal = read_format16(os.path.dirname(at) or ".", header)  # noqa: PTH120
    return recording_from_leads(signal, header.channels.names, header.channels.units, header.rate_hz)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # older tools write the micro sign in Latin-1
        return content.decode("latin-1")


def _refuse_uncalibrated(header: Header) -> None:
    without = header.channels.without_gain
    if without:
        raise SignalError(
            "FECG-271",
            "gain",
            found=f"{without} of {len(header.files)} leads without one (0, or left out: not calibrated)",
            expected="counts per mV of every lead",
            fix="Write the recorder's gain into the header, e.g. 1000/mV, or export the record again.",
        )


def _read_with_package(at: Path, header: Header) -> Recording:
    files, frames = _files(at.parent, header)
    absent = sum(not (at.parent / name).is_file() for name in files)
    if absent:
        raise SignalError(
            "FECG-204",
            "signal file",
            found=f"{absent} file(s) missing, or a pipe or folder",
            expected="the files that the header names, beside the header",
            fix="Copy the signal files together with their header.",
        )
    if header.samples is not None:
        numbers = header.samples * max(len(header.files), 12) * max(frames)
        refuse_beyond(NAME, numbers, sum((at.parent / name).stat().st_size for name in files))
    if header.segment_names and max(frames) > 1:
        raise other_variant(
            NAME, "segments with several samples a frame", "one sample a frame in every segment"
        )
    import wfdb  # it brings pandas and pyarrow, 70 MB, which whoever reads no such file does without

    try:
        # Whole frames are averages of their samples: a lead of 4 samples a frame would lose its QRS.
        record = wfdb.rdrecord(str(at.with_suffix("")), smooth_frames=max(frames) == 1)
    except Exception:  # wfdb raises whatever its parsers meet
        raise _beyond_package() from None
    return _of_package(record, max(frames) > 1)


def _of_package(record: Any, in_frames: bool) -> Recording:
    """The leads that wfdb read, at their own rate."""
    names = [name or "" for name in record.sig_name or []]
    units, rate_hz = list(record.units or []), float(record.fs)
    if not in_frames:
        if record.p_signal is None:
            raise _beyond_package()
        return recording_from_leads(np.asarray(record.p_signal, dtype=np.float64).T, names, units, rate_hz)
    per_frame = list(record.samps_per_frame)
    if any(not standard_lead(name) for name in names):  # refused by name, as with one sample a frame
        return recording_from_leads(np.zeros((len(names), 1)), names, units, rate_hz)
    if len(set(per_frame)) > 1:
        raise other_variant(NAME, "leads at several rates", "one sampling rate for all leads")
    return recording_from_leads(np.array(record.e_p_signal), names, units, rate_hz * per_frame[0])


def _beyond_package() -> SignalError:
    return SignalError(
        "FECG-212",
        "signal file",
        found="one that the wfdb package fails on",
        expected="a WFDB record that it can read",
        fix="Convert the record to WFDB format 16.",
    )


def _files(folder: Path, header: Header) -> tuple[set[str], set[int]]:
    """Names of all files that wfdb would open (signals; headers and signals of segments), and samples a frame.

    Raises:
        SignalError: FECG-202, the header of a segment that reads otherwise.
    """
    names, layouts = set(header.files), set(header.channels.layouts)
    for segment in set(header.segment_names) - {"~"}:
        names.add(f"{segment}.hea")
        if (folder / f"{segment}.hea").is_file():
            part = _segment((folder / f"{segment}.hea").read_bytes())
            if part is not None:
                names.update(part.files)
                layouts.update(part.channels.layouts)
    return names - {"~"}, {frame for _, frame, _, _ in layouts} | {1}


def _segment(content: bytes) -> Header | None:
    """The header of a segment; None of a layout segment, which names no file."""
    try:
        return parse_header(_decoded(content))
    except SignalError as error:
        if error.code == "FECG-203":
            return None
        raise
