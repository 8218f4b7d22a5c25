"""The site's account of what was released about its patients: it forgets nothing, and it is written before the release.

In:  a folder, a budget, releases and the patients they speak of. Out: entries on the disk. Called by the client.

Guarantees:
    `spend` returns only when its entries are on the disk: a release made after it is never missing from the ledger,
    whatever is killed when. At most the release in hand is counted without having been made.
    A budget is a patient's: whatever was released in any study, phase or run about sets that contain the same patient
    composes, and what would pass `epsilon` for any one of them is refused before anything is written or computed.
    An edited, missing or inserted entry, a cut end, another key, a second process: refused with a code (`book`).
    An older copy is refused once the coordinator says which head it saw (`refuse_if_behind`). If both sides are
    restored together nobody can notice.

Patients stand in it as HMACs under a key that lies beside it and never leaves the site.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedecg.cohort import ALIGN, Cohort
from fedecg.errors import PolicyError
from fedecg.locks import LockHeldError, held
from fedecg.privacy.accountant import Accountant, Part, Spend, epsilon_of
from fedecg.privacy.book import Book, Entry, Head, Members, Purpose, digest_of, exists_in, next_entry
from fedecg.privacy.names import one_form

__all__ = [
    "Entry",
    "Head",
    "Ledger",
    "Patients",
    "Purpose",
    "open_ledger",
    "patients_by_part",
    "refuse_if_behind",
]

Patients = Mapping[Part, Members]  # the pseudonyms of each part
History = tuple[Spend, ...]


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """The ledger of a site, made if there is none; nobody else has it meanwhile.

    Args:
        folder: of the site: ledger.sqlite and ledger.key stand in it.

    Raises:
        PolicyError: FECG-431 another process has it; FECG-432 it is damaged; FECG-433 its key is missing or another
            one; FECG-436 it cannot be made.
    """
    try:
        with held(folder / "ledger.lock"):
            book = Book(folder)
            try:
                yield Ledger(book)
            finally:
                book.close()
    except LockHeldError:
        raise PolicyError(
            "FECG-431",
            "ledger of the site",
            found="another process that has it open",
            expected="one process at a time, so that no release is counted twice or not at all",
            fix="Wait for it, or end it: fedecg-client stop.",
        ) from None


def refuse_if_behind(folder: Path, seen: Head | None) -> None:
    """Compare a site's ledger with the last head of it that the coordinator saw; a look makes none.

    Raises:
        PolicyError: FECG-435, it ends before that head, is another one, or is not there; as `open_ledger`.
    """
    if seen is None or seen.sequence == 0:
        return
    if not exists_in(folder):
        raise _behind(0, seen)
    with open_ledger(folder) as ledger:
        ledger.refuse_if_behind(seen)


def patients_by_part(ledger: Ledger, cohort: Cohort) -> dict[Part, Members]:
    """Pseudonyms of the patients of each part of a site's table; "align" is learned from as "train" is, and in it."""
    inside: dict[Part, tuple[str, ...]] = {
        "train": ("train", ALIGN),
        "validation": ("validation",),
        "test": ("test",),
    }
    return {
        part: ledger.pseudonyms(cohort.patient_names(np.isin(cohort.part, names)))
        for part, names in inside.items()
    }


class Ledger:
    """An open ledger; `open_ledger` gives one.

    Args:
        book: its file.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    @property
    def head(self) -> Head:
        """The last entry: what a reply carries."""
        return self._book.head

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, oldest first."""
        return tuple(self._book.entries)

    @property
    def patients(self) -> Members:
        """Everybody about whom something was released."""
        return frozenset[bytes]().union(*self._book.sets.values())

    def patients_of(self, part: Part) -> Members:
        """Everybody about whom something was released as one of that part."""
        sets = {entry.patients for entry in self._book.entries if entry.spend.part == part}
        return frozenset[bytes]().union(*(self._book.sets[name] for name in sets))

    def pseudonyms(self, names: Iterable[str]) -> Members:
        """HMAC-SHA-256 of each patient's own name or number, as the cohort table has it (`Cohort.patient_names`).

        Numbers are numbers, however a table writes them (`one_form`).
        """
        return frozenset(hmac.digest(self._book.key, one_form(name).encode(), "sha256") for name in names)

    def spend(
        self, purpose: Purpose, spends: Sequence[Spend], patients: Patients, epsilon: float, delta: float
    ) -> Head:
        """Write down what is about to be released; when this returns it is on the disk, and the release may be made.

        Args:
            purpose: of all of them.
            spends: released together, each about the patients of its part.
            patients: those of every part that a spend names; whoever the release may depend on.
            epsilon, delta: budget of a patient over everything.

        Raises:
            PolicyError: FECG-434 the budget does not allow it; FECG-436 it cannot be written. Nothing is written then.
        """
        spent = self.epsilon(patients, delta, spends)
        if not spent <= epsilon:
            raise PolicyError(
                "FECG-434",
                f"privacy budget, {purpose.phase} round {purpose.round} of study {purpose.study}",
                found=f"an epsilon of {spent:.3f} with this release",
                expected=f"at most {epsilon:g} (privacy.epsilon of site.toml) at delta {delta:g}",
                fix="The budget of these patients is used up; nothing was computed or sent.",
            )
        names = {part: digest_of(patients[part]) for part in {spend.part for spend in spends}}
        entries: list[Entry] = []
        for spend in spends:
            after = entries[-1].head if entries else self.head
            entries.append(next_entry(after, purpose, spend, names[spend.part]))
        if entries:
            self._book.append(entries, {name: patients[part] for part, name in names.items()})
        return self.head

    def epsilon(
        self,
        patients: Patients,
        delta: float,
        further: Sequence[Spend] = (),
        accountant: Accountant = "rdp",
    ) -> float:
        """Epsilon at `delta` of the patient, among these, about whom most was released; 0 for nobody.

        Args:
            patients: whom to look at, by part.
            further: releases about the patients of their parts that are not in the book yet.
        """
        found = 0.0
        for parts, sets in self._alike(patients):
            new = [spend for spend in further if spend.part in parts]
            own = [entry.spend for entry in self._book.entries if entry.patients in sets]
            found = max(found, _epsilon(_merged([*own, *new]), delta, accountant))
        return found

    def histories(self, patients: Members, without: Callable[[Purpose], bool]) -> frozenset[History]:
        """What was released about the patients so far, each history once.

        Args:
            without: leaves out entries of such purposes.
        """
        own = [entry for entry in self._book.entries if not without(entry.purpose)]
        return frozenset(
            _merged([entry.spend for entry in own if entry.patients in sets])
            for _, sets in self._alike({"train": patients})
        )

    def refuse_if_behind(self, seen: Head) -> None:
        """Compare with what the coordinator saw last.

        Raises:
            PolicyError: FECG-435, this ledger ends before it, or is another one.
        """
        entries = self._book.entries
        known = len(entries) >= seen.sequence and entries[seen.sequence - 1].sha256 == seen.sha256
        if seen.sequence and not known:
            raise _behind(len(entries), seen)

    def _alike(self, patients: Patients) -> set[tuple[frozenset[Part], frozenset[str]]]:
        """Which parts, and which sets of the book, patients are in: each combination that there is, once."""
        inside: dict[bytes, int] = {}  # a bit for every set, so that many patients stay cheap
        places = [*patients.items(), *self._book.sets.items()]
        wanted = frozenset[bytes]().union(*patients.values())
        for bit, (_, members) in enumerate(places):
            for patient in members & wanted:
                inside[patient] = inside.get(patient, 0) | 1 << bit
        parts = list(patients)
        names = list(self._book.sets)
        return {
            (
                frozenset(part for bit, part in enumerate(parts) if mask >> bit & 1),
                frozenset(name for bit, name in enumerate(names, start=len(parts)) if mask >> bit & 1),
            )
            for mask in set(inside.values())
        }


def _merged(spends: Sequence[Spend]) -> History:
    """The same with equal mechanisms as one of more steps: fewer to compose, the same epsilon."""
    steps: dict[tuple[float, float], int] = {}
    for spend in spends:
        kind = (spend.noise_multiplier, spend.sampling_rate)
        steps[kind] = steps.get(kind, 0) + spend.steps
    return tuple(
        Spend("any", "train", noise, rate, number) for (noise, rate), number in sorted(steps.items())
    )


@lru_cache(maxsize=256)
def _epsilon(history: History, delta: float, accountant: Accountant) -> float:
    return epsilon_of(history, delta, accountant)


def _behind(entries: int, seen: Head) -> PolicyError:
    return PolicyError(
        "FECG-435",
        "ledger of the site",
        found=f"{entries} entries, without the one that the coordinator saw last ({seen.sequence})",
        expected="the ledger with which this site answered before",
        fix="An older copy was restored, or another one: bring back the latest. Nothing leaves until then.",
    )
