"""What an ECG is said to show, where the hospital's table of ECGs has a column for it.

In:  cells of the column `[columns] ecgs.codes`. Out: a dictionary an ECG, code -> likelihood in percent, as alignment
     takes it. Called by `build_records`.

A cell is one of three: an object such as {"LVH": 100, "NORM": 0} or, as PTB-XL has it, {'LVH': 100.0}; codes apart by
semicolons, commas or bars ("LVH; AFIB"), each meant fully (100); or blank: nothing is stated. Which codes there are is
the business of the study's bank: preflight tells codes that it does not know. A sentence is no code.
"""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_tables import Table

__all__ = ["read_statements"]

Codes = dict[str, float]
LONGEST = 10_000  # characters of a cell: more is a report, or an attack on the parser
_CODE = re.compile(r"[A-Za-z0-9_()/+.:-]{1,32}")
_BETWEEN = re.compile(r"[;,|]")


def read_statements(table: Table, faults: Faults) -> NDArray[np.object_]:
    """(n,) a dictionary for every row of the table of ECGs, empty where nothing is stated or there is no such column.

    Args:
        faults: FECG-287 cells that are none of the three.
    """
    if "codes" not in table.columns:
        return np.array([{} for _ in range(table.rows)], dtype=object)
    column = table["codes"]
    read = [_read(cell) for cell in column.distinct]
    bad = np.array([one is None for one in read], dtype=np.bool_)[column.at]
    faults.add(
        "FECG-287",
        "codes of ECGs",
        table["patient"].cells()[bad],
        rows=int(bad.sum()),
        found=f"of {table.rows} cells that are no codes",
        expected='{"LVH": 100, "NORM": 0} with likelihoods of 0 to 100, or LVH;NORM, or blank',
    )
    said = np.empty(table.rows, dtype=object)
    for row, number in enumerate(column.at):
        said[row] = dict(read[number] or {})
    return said


def _read(cell: str) -> Codes | None:
    """What a cell states; None where it is none of the three."""
    if len(cell) > LONGEST:
        return None
    if cell.startswith("{"):
        return _object(cell)
    codes = [code.strip() for code in _BETWEEN.split(cell)] if cell else []
    if not all(_CODE.fullmatch(code) for code in codes):
        return None
    return dict.fromkeys(codes, 100.0)


def _object(cell: str) -> Codes | None:
    try:
        tree = _parsed(cell)
        stated = {str(code): float(likelihood) for code, likelihood in tree.items()}
    except (ValueError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError):
        return None
    sound = all(_CODE.fullmatch(code) for code in stated)
    within = all(math.isfinite(likelihood) and 0 <= likelihood <= 100 for likelihood in stated.values())
    return stated if sound and within else None


def _parsed(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return ast.literal_eval(cell)  # single quotes: a dictionary as Python prints it; nothing in it is run
