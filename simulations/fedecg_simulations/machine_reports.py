"""Lines of a cart's machine report as SCP-ECG statements, by the rules `machine_statements.csv` beside this file.

In:  the lines of a report (MIMIC-IV-ECG: report_0 to report_17). Out: SCP code -> likelihood in percent, as a cohort's
     `codes` has them. Called by `mimic_iv_ecg`. A machine's statement is not a diagnosis; the table's head says so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files

__all__ = ["report_codes"]

STATED, DOUBTED = 100.0, 50.0  # likelihood of what a line says, and of what it says with a hedge
# A line that denies something, or calls it normal, states nothing; what is only not excluded is not stated either.
_DENIED = re.compile(
    r"\bno (?!longer)|\bnot\b|\bwithout\b|\bcannot (?:rule out|exclude)\b|\bnormal variant\b|\brather than\b"
)
_DOUBTED = re.compile(
    r"\bpossibl[ey]\b|\bprobabl[ey]\b|\bconsider\b|\bborderline\b|\bsuggests?\b|\bmay be\b|\bor\b"
)
# The report without the name of a patient's sex or age is a remark on the report, not on the ECG.
_REMARK = re.compile(
    r"\breport (?:made|may)\b|\bsuspect(?:ed)? (?:arm|lead)|\blead\(s\) unsuitable\b|\bunconfirmed\b"
)
# A complete block is not stated where the line says that it is incomplete, or only of that type.
_INCOMPLETE = {"IRBBB": "CRBBB", "ILBBB": "CLBBB"}


def report_codes(lines: Iterable[str]) -> dict[str, float]:
    """What a report states.

    Args:
        lines: of one report; blank ones are skipped.

    Returns:
        SCP code -> likelihood: 100 as stated, 50 where the line hedges ("possible", "consider", "borderline", ...);
        the highest of all lines that state it.
    """
    stated: dict[str, float] = {}
    for line in lines:
        for code, likelihood in _line_codes(" ".join(line.lower().split()).strip(" .*-")):
            stated[code] = max(likelihood, stated.get(code, 0.0))
    return stated


@lru_cache(maxsize=65536)  # the carts have a few thousand lines, which stand there millions of times
def _line_codes(line: str) -> tuple[tuple[str, float], ...]:
    if not line or _REMARK.search(line) or _DENIED.search(line):
        return ()
    likelihood = DOUBTED if _DOUBTED.search(line) else STATED
    found = [code for pattern, code in _rules() if pattern.search(line)]
    complete = {_INCOMPLETE[code] for code in found if code in _INCOMPLETE}
    return tuple((code, likelihood) for code in dict.fromkeys(found) if code not in complete)


@cache
def _rules() -> Sequence[tuple[re.Pattern[str], str]]:
    table = files("fedecg_simulations").joinpath("machine_statements.csv").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if not line.startswith("#")]
    return tuple((re.compile(row["pattern"]), row["scp"]) for row in csv.DictReader(lines))
