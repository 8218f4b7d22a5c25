"""What can be wrong with a file of any format, said in one way.

In:  the name of a format and what was found (a count or a kind, never a value of the patient).
Out: `SignalError`s that all readers raise; sizes that a file may declare. Called by every reader of this room.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError

__all__ = [
    "NUMBER_BYTES",
    "damaged",
    "in_numbers",
    "missing_package",
    "no_median",
    "no_rhythm",
    "not_calibrated",
    "other_variant",
    "refuse_beyond",
    "too_large",
]

NUMBER_BYTES = 8  # of a float64, what most packages decode to
# What a file may swell to in memory: a small multiple of its size, and room for one ordinary ECG however well packed.
_SWELLING, _ROOM_BYTES = 8, 20 * 2**20


def damaged(name: str, found: str) -> SignalError:
    """A file that begins as its format does and does not go on as one."""
    return SignalError(
        "FECG-277",
        f"{name} file",
        found=found,
        expected="a whole file of that format",
        fix="It is damaged, or written differently: copy or export it again.",
    )


def too_large(name: str, found: str) -> SignalError:
    """A file that declares or holds more than an ECG needs."""
    return SignalError(
        "FECG-278",
        f"{name} file",
        found=found,
        expected="an ECG of a size that fits its file",
        fix="It is damaged or no single ECG: export the ECG again.",
    )


def refuse_beyond(name: str, numbers: int, file_bytes: int) -> None:
    """Refuse a file whose declared numbers of samples would swell beyond its size.

    Raises:
        SignalError: FECG-278.
    """
    if numbers < 0 or numbers * NUMBER_BYTES > _SWELLING * file_bytes + _ROOM_BYTES:
        raise too_large(name, f"{max(numbers, 0)} declared samples in {file_bytes} bytes")


def missing_package(name: str) -> SignalError:
    """The format is read by packages that an extra brings."""
    return SignalError(
        "FECG-276",
        f"{name} file",
        found="no package that reads it",
        expected="the packages of the extra vendors",
        fix="pip install 'fedecg[vendors]'",
    )


def not_calibrated(name: str, found: str) -> SignalError:
    """Counts without what they mean in volts."""
    return SignalError(
        "FECG-271",
        f"{name} file",
        found=found,
        expected="the amplitude of one count, not 0",
        fix="Export the ECG again with its amplitude resolution.",
    )


def no_rhythm(name: str) -> SignalError:
    """There is a median beat, or nothing, where a strip is asked for."""
    return SignalError(
        "FECG-282",
        f"{name} file",
        found="no rhythm strip in it",
        expected="consecutive beats of all leads",
        fix="Export the ECG with its rhythm strip.",
    )


def no_median(name: str) -> SignalError:
    """A median beat is asked for and there is none."""
    return SignalError(
        "FECG-282",
        f"{name} file",
        found="no median beat in it",
        expected="a median beat that the cardiograph stored",
        fix="Export the ECG with its median beats, or let fedecg compute them from the strip.",
    )


def other_variant(name: str, found: str, expected: str) -> SignalError:
    """A variant of the format that this version does not read."""
    return SignalError(
        "FECG-284", f"{name} file", found=found, expected=expected, fix="Export the ECG another way."
    )


def in_numbers(text: str, name: str, separator: str = ",") -> NDArray[np.float64]:
    """(samples,) numbers of a text, at about the memory of the text itself and of the numbers.

    Raises:
        SignalError: FECG-277, anything else in it.
    """
    if not re.fullmatch(r"[-+0-9.eE,\s]*", text):
        raise damaged(name, "samples that are no numbers")
    try:
        return np.fromstring(text.strip().rstrip(separator), dtype=np.float64, sep=separator)
    except (ValueError, DeprecationWarning):
        raise damaged(name, "samples that are no numbers") from None
