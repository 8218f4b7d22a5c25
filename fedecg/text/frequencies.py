"""Class weights of the alignment loss from public frequencies: no site's records are asked.

In:  codes of a bank; `frequencies.csv` beside this file, whose head names its sources. Out: (K,) weights, and the hash
     of the table for the study's lock. Called by `fedecg.training`, and by whoever makes a lock.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import TextError

__all__ = ["HEAVIEST", "LIGHTEST", "class_weights", "frequencies_sha256"]

LIGHTEST, HEAVIEST = 0.25, 4.0


def class_weights(codes: Sequence[str]) -> NDArray[np.float32]:
    """What a statement counts in the loss: the root of how rare it is, within bounds.

    Weight = sqrt(geometric mean of the frequencies / its own frequency), at least 1/4 and at most 4. The root, since
    with the inverse itself 10 records of PTB-XL would outweigh 16,782; the bounds, since a rare code's label is also
    the one most often wrong.

    Args:
        codes: K codes of a bank, all of one list (SCP-ECG or SNOMED CT).

    Returns:
        (K,) float32 in [0.25, 4]; of the codes' order and of nothing else.

    Raises:
        TextError: FECG-270 codes of whose frequency nothing is published.
    """
    known = max(_frequencies().values(), key=lambda table: sum(code in table for code in codes))
    unknown = sum(code not in known for code in codes)
    if unknown:
        raise TextError(
            "FECG-270",
            "class weights of the alignment loss",
            found=f"{unknown} of the bank's {len(codes)} codes without a public frequency",
            expected=f"codes of one list: {', '.join(_frequencies())}",
            fix='Set align.class-weights = "none", or take a bank of these codes.',
        )
    records = np.array([known[code] for code in codes], dtype=np.float64)
    rarity = np.exp(np.log(records).mean()) / records
    bounded: NDArray[np.float64] = np.clip(np.sqrt(rarity), LIGHTEST, HEAVIEST)
    return bounded.astype(np.float32)


@cache
def frequencies_sha256() -> str:
    """Of the table as it stands in the package: what the lock says of the weights."""
    return hashlib.sha256(_table().encode()).hexdigest()


@cache
def _frequencies() -> Mapping[str, Mapping[str, int]]:
    tables: dict[str, dict[str, int]] = {}
    for row in csv.DictReader(line for line in _table().splitlines() if not line.startswith("#")):
        tables.setdefault(row["list"], {})[row["code"]] = int(row["records"])
    return tables


def _table() -> str:
    return files("fedecg.text").joinpath("frequencies.csv").read_text(encoding="utf-8")
