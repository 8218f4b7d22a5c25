"""What is wrong with a site's tables: collected, then said all at once, or counted as patients left out.

In:  faults as they are found, each with a code, a count and the patients whom it touches.
Out: one `CohortError` for all, or the set of patients to go on without. Called by the modules of `build`.
No message holds a patient, a date, a code or the name of a file: tables are named by their role.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fedecg.errors import CohortError

__all__ = ["Fault", "Faults"]

LEAVE_OUT = 'Correct the tables, or go on without these patients: [exclude] faults = "leave-out".'
DATES = (
    "Say how the dates of the tables are written: dates in [columns]. Of so many nobody is left out: those that can be "
    "read are likely to be read wrongly."
)


@dataclass(frozen=True)
class Fault:
    """One kind of thing that is wrong with one table.

    Attributes:
        code: FECG-nnn. what: table and column. found: with a count. expected: in words. count: of rows or patients.
        of_settings: it is how the settings read the table, and not some of its rows.
    """

    code: str
    what: str
    found: str
    expected: str
    count: int
    of_settings: bool = False


@dataclass
class Faults:
    """All that was found so far.

    Attributes:
        found: in order. patients: whom they touch; a row without a patient touches none.
    """

    found: list[Fault] = field(default_factory=list)
    patients: set[str] = field(default_factory=set)

    def add(
        self,
        code: str,
        what: str,
        patients: Iterable[str],
        *,
        rows: int,
        found: str,
        expected: str,
        of_settings: bool = False,
    ) -> None:
        """Note a fault of `rows` rows; nothing where there are none. `found` follows the count."""
        if rows:
            self.found.append(Fault(code, what, f"{rows} {found}", expected, rows, of_settings))
            self.patients.update(patient for patient in patients if patient)

    def add_table(self, error: CohortError) -> None:
        """Note a table that cannot be read at all."""
        self.found.append(Fault(error.code, error.what, error.found, error.expected, 1))

    def refuse(self, fix: str = LEAVE_OUT) -> None:
        """Stop if there are any.

        Args:
            fix: of whatever was found.

        Raises:
            CohortError: the fault's own code where it is the only one, else FECG-293 with one line each.
        """
        if len(self.found) == 1:
            only = self.found[0]
            raise CohortError(only.code, only.what, found=only.found, expected=only.expected, fix=fix)
        if self.found:
            lines = [
                f"{one.code} {one.what}: found {one.found}; expected {one.expected}" for one in self.found
            ]
            raise CohortError(
                "FECG-293",
                "tables of the cohort",
                found=f"{len(lines)} kinds of fault\n  " + "\n  ".join(lines) + "\n",
                expected="tables without them",
                fix=fix,
            )

    def refuse_settings(self) -> None:
        """Stop if any is of the settings: to go on without these patients would be to choose by how a date looks.

        Raises:
            CohortError: as `refuse`.
        """
        Faults([one for one in self.found if one.of_settings]).refuse(DATES)

    def as_json(self) -> list[dict[str, Any]]:
        """For flow.json."""
        return [
            {"code": one.code, "what": one.what, "count": one.count, "found": one.found} for one in self.found
        ]
