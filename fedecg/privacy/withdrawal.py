"""Patients who have withdrawn, and cohorts of which something was released: what a site must remember of people.

In:  a site's folder, the patients of its table as the cells name them. Out: the table without those who have withdrawn;
     a refusal where a cohort differs by a few patients from one of which sums have left. Files in the site's state
     folder, for its owner alone. Called wherever a site's table is read, and by the client.

Patients stand in both files as HMACs under state/patients.key, which never leaves: who finds a file finds no names.

Guarantees:
    Whoever has withdrawn is in no table that is read after `withdraw` has returned. A list that cannot be read stops
    everything: nobody is forgotten in silence.
    A cohort of a part that differs from a released one by 1 to `least` - 1 patients is refused before anything is
    computed: two sums over them would differ by these patients alone. Those who have withdrawn do not count, since the
    law wants them out at once; the two sums then do differ by them, and `fedecg-client withdraw` says so.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedecg.cohort import Cohort, read_cohort
from fedecg.errors import PolicyError
from fedecg.files import in_words, write_whole
from fedecg.privacy.names import one_form

__all__ = ["admit_cohort", "read_site_cohort", "withdraw", "withdrawn_state", "without_withdrawn"]

KEY, WITHDRAWN, RELEASED = "patients.key", "withdrawn.json", "released-cohorts.json"
KEY_BYTES = 32


def read_site_cohort(site_folder: str | Path, table: str | Path) -> Cohort:
    """A site's table without those who have withdrawn.

    Raises:
        CohortError: as `read_cohort`. PolicyError: FECG-450 who has withdrawn cannot be read.
    """
    return without_withdrawn(read_cohort(table), site_folder)


def without_withdrawn(cohort: Cohort, site_folder: str | Path) -> Cohort:
    """The rows of everybody else; the same object where nobody has withdrawn.

    Raises:
        PolicyError: FECG-450 who has withdrawn cannot be read.
    """
    state = Path(site_folder) / "state"
    gone = _withdrawn(state)
    if not gone:
        return cohort
    key = _key(state, make=False)
    names = cohort.names or tuple(map(str, cohort.patient.tolist()))
    pseudonym = {name: _pseudonym(key, name) for name in set(names)}
    return cohort.select(np.array([pseudonym[name] not in gone for name in names], dtype=np.bool_))


def withdraw(site_folder: Path, names: Collection[str]) -> int:
    """Remember that these patients take part in nothing any more; on the disk when this returns.

    Args:
        names: as the cells of the table's column `patient` have them; also of patients who are not in it yet.

    Returns:
        How many were not known to have withdrawn.

    Raises:
        PolicyError: FECG-450 who has withdrawn before cannot be read. RunError: FECG-601 it cannot be written.
    """
    state = site_folder / "state"
    before = _withdrawn(state)
    key = _key(state, make=True)
    after = before | {_pseudonym(key, name) for name in names}
    write_whole(state / WITHDRAWN, json.dumps(sorted(after)) + "\n", private=True)
    return len(after) - len(before)


def withdrawn_state(site_folder: str | Path) -> tuple[int, int]:
    """Changes whenever somebody withdraws: what has been read of a table before is then read anew."""
    file = Path(site_folder) / "state" / WITHDRAWN
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def admit_cohort(site_folder: Path, parts: Mapping[str, Mapping[str, str]], least: int) -> None:
    """May sums over these cohorts leave, after those that have left? If so, they are remembered, on the disk.

    A patient of whom something else is known than before differs like one who has come or gone: two tables of the
    same patients of whom one has had the event meanwhile tell which bin he had it in.

    Args:
        parts: for each part of which sums leave, what is counted of each patient, by name.
        least: fewest patients that two cohorts of one part may differ by, unless they are the same.

    Raises:
        PolicyError: FECG-452 they differ by fewer; FECG-450 what was released before cannot be read.
        RunError: FECG-601 it cannot be written.
    """
    state = site_folder / "state"
    gone, released = _withdrawn(state), _released(state)
    key = _key(state, make=True)
    known = True
    for part, patients in parts.items():
        now = _without({_entry(key, name, counted) for name, counted in patients.items()}, gone)
        before = [_without(cohort, gone) for cohort in released.get(part, [])]
        differences = [len({_whose(entry) for entry in now ^ cohort}) for cohort in before]
        few = [number for number in differences if 0 < number < least]
        if few:
            raise _differs(part, len(few), least)
        if 0 not in differences:
            released, known = {**released, part: [*released.get(part, []), sorted(now)]}, False
    if not known:
        write_whole(state / RELEASED, json.dumps(released) + "\n", private=True)


def _entry(key: bytes, name: str, counted: str) -> str:
    """A patient, and what is counted of him, without either: two keyed hashes."""
    return f"{_pseudonym(key, name)}:{_pseudonym(key, f'{one_form(name)} {counted}')[:16]}"


def _whose(entry: str) -> str:
    return entry.partition(":")[0]


def _without(entries: Collection[str], gone: frozenset[str]) -> frozenset[str]:
    return frozenset(entry for entry in entries if _whose(entry) not in gone)


def _withdrawn(state: Path) -> frozenset[str]:
    document = _read(state / WITHDRAWN)
    if document is None:
        return frozenset()
    if not isinstance(document, list) or not all(isinstance(entry, str) for entry in document):
        raise _unreadable(WITHDRAWN, "another document")
    return frozenset(document)


def _released(state: Path) -> dict[str, list[list[str]]]:
    document = _read(state / RELEASED)
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(cohorts, list) for cohorts in document.values()):
        raise _unreadable(RELEASED, "another document")
    return document


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(file.name, in_words(error)) from None


def _key(state: Path, make: bool) -> bytes:
    """The key; without it nobody in the files would be known again, so that it is made only where there are none."""
    file = state / KEY
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        key = b""
    except OSError as error:
        raise _unreadable(KEY, in_words(error)) from None
    if len(key) == KEY_BYTES:
        return key
    if not make or key or any((state / name).exists() for name in (WITHDRAWN, RELEASED)):
        raise _unreadable(KEY, "no key, or one of another length")
    state.mkdir(mode=0o700, exist_ok=True)
    key = secrets.token_bytes(KEY_BYTES)
    write_whole(file, key, private=True)
    return key


def _pseudonym(key: bytes, name: str) -> str:
    return hmac.digest(key, one_form(name).encode(), "sha256").hex()


def _unreadable(name: str, found: str) -> PolicyError:
    return PolicyError(
        "FECG-450",
        f"{name} in the site's state folder",
        found=found,
        expected="the file as fedecg wrote it",
        fix="Bring it back from a backup: without it nobody knows who must be left out.",
    )


def _differs(part: str, cohorts: int, least: int) -> PolicyError:
    return PolicyError(
        "FECG-452",
        f"{part} part of the cohort",
        found=f"a set of patients that differs by fewer than {least} from {cohorts} of which sums have left",
        expected=f"the same patients and outcomes, or at least {least} others (privacy.threshold-patients)",
        fix="Bring back the table as it was, wait until more have changed, or take part with masked sums.",
    )
