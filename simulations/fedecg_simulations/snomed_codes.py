"""SNOMED CT codes of ECG headers as SCP-ECG statements, by the table `snomed_to_scp.csv` beside this file.

In:  the codes of a record. Out: SCP code -> likelihood in percent, as a cohort's `codes` has them, and which codes no
     statement says. Called by `cinc2021`. The table's head names its sources and what nobody has reviewed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

__all__ = ["Meaning", "scp_codes", "snomed_meanings"]

ONE_OF = "one-of"


@dataclass(frozen=True)
class Meaning:
    """What a SNOMED CT code says in SCP statements.

    Attributes:
        relation: "same", "narrower" (says more than the statement), "one-of" (does not say which of them), "none".
        codes: SCP code -> likelihood in percent; empty where the relation is "none".
    """

    relation: str
    codes: Mapping[str, float]


@cache
def snomed_meanings() -> Mapping[str, Meaning]:
    """All codes of the table, by code."""
    lines = files("fedecg_simulations").joinpath("snomed_to_scp.csv").read_text(encoding="utf-8").splitlines()
    relation: dict[str, str] = {}
    codes: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        relation[row["snomed"]] = row["relation"]
        stated = codes.setdefault(row["snomed"], {})
        if row["scp"]:
            stated[row["scp"]] = float(row["likelihood"])
    return MappingProxyType(
        {code: Meaning(relation[code], MappingProxyType(stated)) for code, stated in codes.items()}
    )


def scp_codes(snomed: Iterable[str]) -> tuple[dict[str, float], int]:
    """What a record's codes state.

    A code that says "one of these" adds nothing where another code of the record says which (an infarct, and an
    anterior infarct). Where several state the same, the highest likelihood holds.

    Args:
        snomed: codes of one record, each counted once.

    Returns:
        SCP code -> likelihood in percent, in the order of the codes; how many codes state nothing, since no statement
        says it or the table does not have them.
    """
    meanings = [snomed_meanings().get(code) for code in dict.fromkeys(snomed)]
    known = [meaning for meaning in meanings if meaning is not None and meaning.codes]
    certain = {code for meaning in known if meaning.relation != ONE_OF for code in meaning.codes}
    stated: dict[str, float] = {}
    for meaning in known:
        if meaning.relation == ONE_OF and certain.intersection(meaning.codes):
            continue
        for code, likelihood in meaning.codes.items():
            stated[code] = max(likelihood, stated.get(code, 0.0))
    return stated, len(meanings) - len(known)
