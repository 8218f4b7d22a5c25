"""What an ECG code says: PTB-XL's 71 SCP-ECG statements with their categories and classes.

In:  `scp_statements.csv` beside this file (its head names the source and its licence, CC BY 4.0).
Out: `Statement`s for the prompts, and the diagnostic superclass of a record for partitions and probes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

__all__ = ["SUPERCLASSES", "UNCLASSIFIED", "Statement", "dominant_superclass", "scp_statements"]

# PTB-XL's diagnostic superclasses; ties go to the first, so that an abnormality wins over "normal".
SUPERCLASSES = ("MI", "HYP", "CD", "STTC", "NORM")
UNCLASSIFIED = "OTHER"


@dataclass(frozen=True)
class Statement:
    """One SCP-ECG statement, worded as PTB-XL publishes it.

    Attributes:
        code: SCP code, e.g. "CLBBB".
        kinds: one or two of "diagnostic", "form", "rhythm".
        superclass: one of `SUPERCLASSES`, or "" where the statement is not diagnostic.
        subclass: PTB-XL's diagnostic subclass, or "".
        category: the group of statements that it belongs to.
        description: what is stated.
    """

    code: str
    kinds: tuple[str, ...]
    superclass: str
    subclass: str
    category: str
    description: str


@cache
def scp_statements() -> Mapping[str, Statement]:
    """All 71 statements by code, in the order of the codes.

    Source: Wagner et al. 2020, doi 10.1038/s41597-020-0495-6 (table scp_statements.csv, CC BY 4.0).
    """
    lines = files("fedecg.text").joinpath("scp_statements.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    statements = (
        Statement(
            code=row["code"],
            kinds=tuple(row["kinds"].split()),
            superclass=row["superclass"],
            subclass=row["subclass"],
            category=row["category"],
            description=row["description"],
        )
        for row in rows
    )
    return MappingProxyType({statement.code: statement for statement in statements})


def dominant_superclass(codes: Mapping[str, float]) -> str:
    """The diagnostic superclass that most of a record's diagnostic likelihood falls on.

    Args:
        codes: SCP code -> likelihood in percent; 0 counts as stated (100). Codes that are not diagnostic, or
            that the table does not know, do not count.

    Returns:
        One of `SUPERCLASSES`, or `UNCLASSIFIED`. Ties go to the class that stands first in `SUPERCLASSES`.
    """
    weight = dict.fromkeys(SUPERCLASSES, 0.0)
    for code, likelihood in codes.items():
        statement = scp_statements().get(code)
        if statement is not None and statement.superclass:
            weight[statement.superclass] += likelihood or 100.0
    dominant = max(SUPERCLASSES, key=weight.__getitem__)
    return dominant if weight[dominant] > 0 else UNCLASSIFIED
