"""One form of each patient's name or number, so that a ledger and a list of who has withdrawn know them again.

In:  a cell of the table's column `patient`. Out: text. Called by `ledger` and `withdrawal` before they hash it, and by
     whoever compares names with a list. Spreadsheets write 007 as 7, and 7 beside a blank as 7.0: hashed as they stand
they would be other patients, for whom nothing was spent, and who have never withdrawn.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["one_form"]

NUMBER = re.compile(r"\+?([0-9]+)(?:\.0*)?")


def one_form(name: str) -> str:
    """The name without spaces around it; of a whole number its digits, without zeros before or behind the point.

    Where that takes two patients for one, more is counted and more is left out, never less.
    """
    plain = unicodedata.normalize("NFKC", name).strip()
    number = NUMBER.fullmatch(plain)
    return (number[1].lstrip("0") or "0") if number else plain
