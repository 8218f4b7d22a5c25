"""SCP-ECG (EN 1064, ISO 11073-91064): the rhythm data of sections 3 and 6, the reference beat of section 5.

In:  a path and its bytes. Out: `Recording`. Called by `reading`.

`ecgdatakit` unpacks the Huffman codes, the differences and the beats that were subtracted; what it would believe
without a bound (numbers of leads, samples and beats) is checked before it sees the file, and so are the checksums: a
flipped bit in packed samples is a wrong voltage that nothing else shows. The tests compare with the DICOM file that
holds the same ECG.
"""

from __future__ import annotations

import binascii
import tempfile
from pathlib import Path

import numpy as np

from fedecg.errors import SignalError
from fedecg.signals.faults import damaged, missing_package, no_median, no_rhythm, other_variant, too_large
from fedecg.signals.recording import Kind, Recording, recording_from_leads

__all__ = ["NAME", "is_scp", "read_scp"]

NAME = "SCP-ECG"
_BYTES_MAX = 2 * 2**20  # packed, 10 s of twelve leads take 20 to 40 KB
_LEADS_MAX, _SAMPLES_MAX, _BEATS_MAX = 64, 1_000_000, 1_000
_HEADER, _POINTER = 16, 10  # bytes of a section's header, of a pointer in section 0
_MILLIVOLTS = {"mV": 1.0, "uV": 1e-3}


def is_scp(head: bytes) -> bool:
    """Whether a file begins as SCP-ECG does: section 0, whose first pointer is to itself."""
    section = head[8:10] == b"\0\0" and head[22:24] == b"\0\0" and head[28:32] == b"\x07\0\0\0"
    return head[16:22] == b"SCPECG" or section


def read_scp(content: bytes, kind: Kind) -> Recording:
    """The rhythm data, or the reference beat.

    Raises:
        SignalError: FECG-206 checksum, FECG-207..211 leads and rate, FECG-276..278, FECG-282, FECG-284.
    """
    _verify(content)
    try:
        from ecgdatakit import FileParser
    except ImportError:
        raise missing_package(NAME) from None
    # It reads paths only, and looks at the file again to know the format.
    with tempfile.TemporaryDirectory(prefix="fedecg-") as folder:
        copy = Path(folder) / "ecg.scp"
        copy.write_bytes(content)
        record = FileParser.parse(copy)
    leads = record.median_beats if kind == "median" else record.leads
    if not leads:
        raise no_median(NAME) if kind == "median" else no_rhythm(NAME)
    if (
        len({(len(lead.samples), lead.sampling_rate, lead.annotations.get("start_sample")) for lead in leads})
        > 1
    ):
        raise other_variant(NAME, "leads that are not simultaneous", "leads that begin and end together")
    if any(lead.is_raw or lead.units not in _MILLIVOLTS for lead in leads):
        raise damaged(NAME, "an amplitude of 0 a count")
    signal = np.array([lead.samples for lead in leads])
    return recording_from_leads(
        signal, [lead.label for lead in leads], [lead.units for lead in leads], leads[0].sampling_rate, kind
    )


def _verify(content: bytes) -> None:
    """Refuse what is cut off, was altered, or declares more than an ECG has."""
    if len(content) > _BYTES_MAX:
        raise too_large(NAME, f"{len(content)} bytes")
    size = int.from_bytes(content[2:6], "little")
    if not 6 + _HEADER <= size <= len(content):
        raise damaged(NAME, f"{len(content)} bytes of {size}")
    if binascii.crc_hqx(content[2:size], 0xFFFF) != int.from_bytes(content[:2], "little"):
        raise SignalError(
            "FECG-206",
            "SCP-ECG file",
            found="a checksum that is not that of the file",
            expected="the sum that its writer stored",
            fix="It is damaged: copy or export it again.",
        )
    bodies = _sections(content[:size])
    leads, beats = bodies.get(3, b"\0"), bodies.get(4, b"")
    starts = range(2, 2 + 9 * leads[0], 9) if leads else range(0)
    ends = [int.from_bytes(leads[at + 4 : at + 8], "little") for at in starts]
    if len(ends) > _LEADS_MAX or max(ends, default=0) > _SAMPLES_MAX:
        raise too_large(NAME, f"{len(ends)} leads of up to {max(ends, default=0)} samples")
    if int.from_bytes(beats[4:6], "little") > _BEATS_MAX:
        raise too_large(NAME, "more beats than an ECG has")


def _sections(content: bytes) -> dict[int, bytes]:
    """Section number -> its content, of those that lie within the file."""
    found: dict[int, bytes] = {}
    end = min(6 + int.from_bytes(content[10:14], "little"), len(content))
    for at in range(6 + _HEADER, end - _POINTER + 1, _POINTER):
        number = int.from_bytes(content[at : at + 2], "little")
        length = int.from_bytes(content[at + 2 : at + 6], "little")
        start = int.from_bytes(content[at + 6 : at + 10], "little") - 1
        if length > _HEADER and start >= 0:
            found[number] = content[start + _HEADER : start + length]
    return found
