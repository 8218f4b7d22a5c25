"""Numbers and names as the reports print them; what is missing or not finite becomes a dash.

In:  single values of summary.json and rounds.json.
Out: short text. Called by the other files of `fedecg.report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

__all__ = [
    "DASH",
    "DAYS_A_YEAR",
    "byte_size",
    "c_index",
    "count",
    "decimal",
    "difference",
    "duration",
    "is_known",
    "label_mix",
    "p_value",
    "percent",
    "printable",
    "ratio",
    "risk",
    "shares",
    "years",
]

DASH = "–"
MINUS = "−"
DAYS_A_YEAR = 365.25


def is_known(value: float | None) -> TypeGuard[float]:
    """True for a finite number; JSON's null, NaN and infinities are all "not known"."""
    return value is not None and math.isfinite(value)


def c_index(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`0.742 (0.719–0.765)`; without the interval where one of its ends is missing."""
    if not is_known(value):
        return DASH
    if not (is_known(low) and is_known(high)):
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def difference(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`+0.041 (95 % CI +0.022 to +0.060)`, signed because its sign is the message."""
    if not is_known(value):
        return DASH
    if not (is_known(low) and is_known(high)):
        return _signed(value)
    return f"{_signed(value)} (95 % CI {_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    digits = f"{abs(value):.3f}"
    if float(digits) == 0.0:  # no sign on what prints as zero
        return digits
    return f"{'+' if value > 0 else MINUS}{digits}"


def percent(share: float | None) -> str:
    """`94 %` from 0.94; a share that is above 0 but rounds to it is `<1 %`."""
    if not is_known(share):
        return DASH
    if 0 < share < 0.005:
        return "<1 %"
    digits = f"{abs(share) * 100:.0f}"
    return f"{MINUS if share < 0 and digits != '0' else ''}{digits} %"


def risk(share: float | None) -> str:
    """`5.7 %` from 0.057; a risk that is above 0 but rounds to it is `<0.1 %`."""
    if not is_known(share):
        return DASH
    return "<0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"


def ratio(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`0.95 (0.85–1.07)`; without the interval where one of its ends is missing."""
    if not is_known(value):
        return DASH
    if not (is_known(low) and is_known(high)):
        return decimal(value, 2)
    return f"{decimal(value, 2)} ({decimal(low, 2)}–{decimal(high, 2)})"


def decimal(value: float | None, digits: int) -> str:
    """`−0.012`; what rounds to zero has no sign."""
    if not is_known(value):
        return DASH
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.") else text


def p_value(value: float | None) -> str:
    """`p < 0.001`, `p = 0.240`."""
    if not is_known(value):
        return f"p {DASH}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def years(time_days: float | None) -> str:
    """`5` or `4.4` from days."""
    return f"{round(time_days / DAYS_A_YEAR, 1):g}" if is_known(time_days) else DASH


def count(value: float | None) -> str:
    """`4,100`."""
    return f"{value:,.0f}" if is_known(value) else DASH


def byte_size(size_bytes: float | None) -> str:
    """`5.1 MB`, decimal units."""
    if not is_known(size_bytes):
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def duration(time_s: float | None) -> str:
    """`8.3 s`, `2 min 5 s`, `1 h 20 min`."""
    if not is_known(time_s):
        return DASH
    if time_s < 99.95:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {seconds} s"


def shares(mix: Mapping[str, float]) -> dict[str, float]:
    """Counts (or shares) by label -> shares that add up to 1, largest first; ties in order of label."""
    known = {label: float(value) for label, value in mix.items() if is_known(value) and value > 0}
    total = sum(known.values())
    ordered = sorted(known.items(), key=lambda item: (-item[1], item[0]))
    return {label: value / total for label, value in ordered}


def label_mix(mix: Mapping[str, float]) -> str:
    """`NORM 44, MI 20` in percent, largest first; the unit stands in the header of the column."""
    percents = {label: percent(share).removesuffix(" %") for label, share in shares(mix).items()}
    return ", ".join(f"{printable(label)} {number}" for label, number in percents.items()) or DASH


def printable(text: object) -> str:
    """One line without control characters: names go to terminals, where an escape sequence would act."""
    return "".join(character if character.isprintable() else "?" for character in str(text))
