"""Every way fedecg refuses to go on.

Each error carries a code (`FECG-nnn`), so that a site can ask for help without sending a value, a path or a
date. The text says what, what was found (a count or a kind), what was expected, and how to mend it. All codes stand in
`fedecg.codes`.

    FedecgError
    ├── SettingsError        FECG-1xx  a settings file or an override          exit 3
    ├── ClinicalInputError   FECG-2xx  ECG files, cohort tables, codes         exit 3
    │   ├── SignalError      FECG-20x, 21x, 27x  a recording or the signal store
    │   ├── CohortError      FECG-22x, 23x  patients, events, follow-up, splits
    │   └── TextError        FECG-24x, 25x  codes, statements, banks, reports
    ├── ModelError           FECG-3xx  weights, shapes, training               exit 3
    ├── PolicyError          FECG-4xx  privacy and site policy                 exit 4
    ├── FederationError      FECG-5xx  messages, rounds, quorum                exit 1
    └── RunError             FECG-6xx  files and processes of a run            exit 1
        └── RunInputError    FECG-602 and others  what a run is read from, or
                             goes on with, that a person must put right        exit 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "ClinicalInputError",
    "CohortError",
    "FedecgError",
    "FederationError",
    "ModelError",
    "PolicyError",
    "RunError",
    "RunInputError",
    "SettingsError",
    "SignalError",
    "TextError",
    "some_of",
]


class FedecgError(Exception):
    """Base of all errors that fedecg raises on purpose.

    Args:
        code: `FECG-nnn`, a key of `fedecg.codes.CODES`.
        what: what is wrong (a setting, a lead, a column); never a patient's id, value, date or path.
        found: a count or a kind.
        expected: range and unit, or the kind that was expected.
        fix: what the reader can do about it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, found: str, expected: str, fix: str = "") -> None:
        self.code, self.what, self.found, self.expected, self.fix = code, what, found, expected, fix
        text = f"{code} {what}: found {found}; expected {expected}."
        super().__init__(f"{text} {fix}" if fix else text)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.what, self.found, self.expected, self.fix)


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Names in a sentence; of very many the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rebuild(
    kind: type[FedecgError], code: str, what: str, found: str, expected: str, fix: str
) -> FedecgError:
    return kind(code, what, found=found, expected=expected, fix=fix)


class SettingsError(FedecgError):
    """A settings file or an override cannot be used."""

    exit_status = 3


class ClinicalInputError(FedecgError):
    """Clinical data (signals, tables, codes) cannot be used as they are."""

    exit_status = 3


class SignalError(ClinicalInputError):
    """A recording or a signal store cannot be used."""


class CohortError(ClinicalInputError):
    """Patients, events, follow-up or splits cannot be used."""


class TextError(ClinicalInputError):
    """Codes, statements or a code bank cannot be used."""


class ModelError(FedecgError):
    """Weights, shapes or a training step cannot be used."""

    exit_status = 3


class PolicyError(FedecgError):
    """Refused by the site's or the study's policy."""

    exit_status = 4


class FederationError(FedecgError):
    """A message or a round cannot be used."""


class RunError(FedecgError):
    """A run's files or processes are not as they must be."""


class RunInputError(RunError):
    """What a run is to be read from, or to go on with, is none, not whole or not the same: bad input, no fault of ours.

    Nothing but a person mends it, so a service manager must not try again and again.
    """

    exit_status = 3
