"""The file of a ledger: entries that follow one another, sets of pseudonyms, and a seal under a key beside it.

In:  a folder, entries. Out: entries that are on the disk when `append` returns; on opening all of them, checked.
Called by `fedecg.privacy.ledger` alone, which holds the lock meanwhile.

Each entry holds the hash of the one before, so that an edited, missing or inserted one is noticed; the seal holds the
number and the hash of the last one under the key, so that a cut end is noticed, too, and a chain that was computed anew
by somebody without the key. Who takes both files away leaves a folder like a new one: only the coordinator's memory of
the head tells it apart, and nothing does if both sides are restored together.

    ledger.key     ledger.sqlite            what it is
    no             no, or without entries   new: nothing was ever released (a kill while it was made leaves this)
    yes            as it was sealed         a ledger
    yes            none, empty, otherwise   damaged: FECG-432
    no, another    with entries             FECG-433
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedecg.errors import PolicyError
from fedecg.files import write_whole
from fedecg.privacy.accountant import Spend

__all__ = [
    "MEMBER_BYTES",
    "Book",
    "Entry",
    "Head",
    "Members",
    "Purpose",
    "digest_of",
    "exists_in",
    "next_entry",
]

Members = frozenset[bytes]

KEY, FILE = "ledger.key", "ledger.sqlite"
KEY_BYTES = MEMBER_BYTES = 32
NOTHING_BEFORE = "0" * 64
FORMAT = 1
TABLES = """
CREATE TABLE patients (sha256 TEXT PRIMARY KEY, members BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, document TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE seal (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER, sha256 TEXT, under_key TEXT, key TEXT);
CREATE TRIGGER no_change BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER no_removal BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""


@dataclass(frozen=True)
class Purpose:
    """What a release is for: names and numbers of the study, nothing of patients."""

    study: str
    run: str
    phase: str
    round: int


@dataclass(frozen=True)
class Head:
    """How far a ledger goes: entries, and the hash of the last."""

    sequence: int = 0
    sha256: str = NOTHING_BEFORE


@dataclass(frozen=True)
class Entry:
    """One line of the book.

    Attributes:
        sequence: 1, 2, 3 ...
        purpose: of the release.
        spend: its mechanism and noise.
        patients: sha256 of the set of patients it speaks of.
        previous: sha256 of the entry before.
        sha256: of this entry.
    """

    sequence: int
    purpose: Purpose
    spend: Spend
    patients: str
    previous: str
    sha256: str

    @property
    def head(self) -> Head:
        """The head of a ledger that ends here."""
        return Head(self.sequence, self.sha256)


def exists_in(folder: Path) -> bool:
    """Whether there is anything of a ledger; a look makes none."""
    return (folder / KEY).exists() or (folder / FILE).exists()


class Book:
    """An open book.

    Args:
        folder: with the two files; they are made where nothing was ever released.

    Raises:
        PolicyError: FECG-432 it is damaged; FECG-433 its key is missing or another one; FECG-436 no room.
    """

    def __init__(self, folder: Path) -> None:
        file, key = folder / FILE, folder / KEY
        found = _key_in(key)
        if found is not None and not (file.is_file() and file.stat().st_size):
            raise damaged("no entries beside their key")
        if found is None:
            _make(file, key)
        self.key = _key_in(key) or b""
        self._file = _connected(file)
        try:
            self._refuse_another_key()
            self.sets = self._read_sets()
            self.entries = self._read_entries()
            self._check_seal()
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise damaged(type(error).__name__) from None
        except PolicyError:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def head(self) -> Head:
        """The last entry."""
        return self.entries[-1].head if self.entries else Head()

    def append(self, entries: Sequence[Entry], sets: Mapping[str, Members]) -> None:
        """Write entries that follow the head, all or none; when this returns they are on the disk.

        Args:
            entries: made by `next_entry`.
            sets: the sets of patients that they name.

        Raises:
            PolicyError: FECG-436 they cannot be written: nothing is.
        """
        book = self._file
        try:
            book.execute("BEGIN IMMEDIATE")
            for name, members in sets.items():
                blob = b"".join(sorted(members))
                book.execute("INSERT OR IGNORE INTO patients VALUES (?, ?)", (name, blob))
            rows = [(entry.sequence, _document(entry), entry.sha256) for entry in entries]
            book.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
            _seal(book, self.key, entries[-1].head)
            book.execute("COMMIT")
        except sqlite3.Error as error:
            if book.in_transaction:
                book.execute("ROLLBACK")
            raise _not_written(error) from None
        self.sets |= sets
        self.entries += entries

    def _refuse_another_key(self) -> None:
        row = self._file.execute("SELECT key FROM seal").fetchone()
        if row is None or not isinstance(row[0], str):
            raise damaged("no seal")
        if not hmac.compare_digest(row[0].encode(), _under(self.key, "key").encode()):
            raise _no_key("another key")

    def _read_sets(self) -> dict[str, Members]:
        rows = self._file.execute("SELECT sha256, members FROM patients")
        sets = {str(name): _members_of(blob) for name, blob in rows if isinstance(blob, bytes)}
        return {name: members for name, members in sets.items() if digest_of(members) == name}

    def _read_entries(self) -> list[Entry]:
        """All entries, each checked."""
        entries: list[Entry] = []
        head = Head()
        for sequence, document, sha256 in self._file.execute("SELECT * FROM entries ORDER BY sequence"):
            entry = _parsed(str(document), str(sha256))
            if entry is None or entry.sequence != sequence or sequence != head.sequence + 1:
                raise damaged("an entry that was changed, or a gap")
            if entry.previous != head.sha256 or entry.patients not in self.sets:
                raise damaged(
                    "an entry that does not follow the one before, or of patients who are not there"
                )
            entries.append(entry)
            head = entry.head
        return entries

    def _check_seal(self) -> None:
        row = self._file.execute("SELECT sequence, sha256, under_key FROM seal").fetchone()
        sealed, head = Head(*row[:2]), self.head
        if sealed != head or not hmac.compare_digest(
            str(row[2]).encode(), _under(self.key, _text(head)).encode()
        ):
            raise damaged("another end than the sealed one")


def next_entry(after: Head, purpose: Purpose, spend: Spend, patients: str) -> Entry:
    """The entry that follows `after`, with its hash."""
    plain = Entry(after.sequence + 1, purpose, spend, patients, after.sha256, "")
    sha256 = hashlib.sha256(_document(plain).encode()).hexdigest()
    return Entry(plain.sequence, purpose, spend, patients, after.sha256, sha256)


def digest_of(members: Members) -> str:
    """Name of a set of pseudonyms."""
    return hashlib.sha256(b"".join(sorted(members))).hexdigest()


def damaged(found: str) -> PolicyError:
    """FECG-432."""
    return PolicyError(
        "FECG-432",
        "ledger of the site",
        found=found,
        expected="the entries as they were written, each following the one before",
        fix="Bring back the latest copy of ledger.sqlite and ledger.key; nothing is released without them.",
    )


def _make(file: Path, key: Path) -> None:
    """A new book and, once it is on the disk, its key; whatever a kill leaves in between is made anew.

    Raises:
        PolicyError: FECG-433 there are entries already; FECG-432 there is something else; FECG-436 no room.
    """
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise _not_written(error) from None
    book = _connected(file)
    try:
        if _has_entries(book):
            raise _no_key("no key, or one of another length")
        new = secrets.token_bytes(KEY_BYTES)
        book.execute("BEGIN IMMEDIATE")
        for kind, name in book.execute(
            "SELECT type, name FROM sqlite_master WHERE type = 'table'"
        ).fetchall():
            book.execute(f"DROP {kind} {name}")
        for statement in TABLES.strip().split("\n"):
            book.execute(statement)
        _seal(book, new, Head())
        book.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise _not_written(error) from None
    except sqlite3.DatabaseError as error:
        raise damaged(type(error).__name__) from None
    finally:
        book.close()
    write_whole(key, new, private=True)
    folder = os.open(key.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the key's name, too, before the first entry
    finally:
        os.close(folder)


def _connected(file: Path) -> sqlite3.Connection:
    try:
        book = sqlite3.connect(file, isolation_level=None)
        book.execute("PRAGMA journal_mode = DELETE")
        book.execute(
            "PRAGMA synchronous = EXTRA"
        )  # on the disk, the folder's entry, too, when COMMIT returns
    except sqlite3.DatabaseError as error:
        raise damaged(type(error).__name__) from None
    return book


def _has_entries(book: sqlite3.Connection) -> bool:
    tables = {name for (name,) in book.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return "entries" in tables and book.execute("SELECT count(*) FROM entries").fetchone()[0] > 0


def _seal(book: sqlite3.Connection, key: bytes, head: Head) -> None:
    sealed = (head.sequence, head.sha256, _under(key, _text(head)), _under(key, "key"))
    book.execute("INSERT OR REPLACE INTO seal VALUES (1, ?, ?, ?, ?)", sealed)


def _text(head: Head) -> str:
    return f"{head.sequence} {head.sha256}"


def _under(key: bytes, text: str) -> str:
    return hmac.digest(key, f"fedecg ledger {FORMAT}: {text}".encode(), "sha256").hex()


def _document(entry: Entry) -> str:
    """What is hashed: everything but the hash."""
    fields = asdict(entry) | {"format": FORMAT}
    del fields["sha256"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _parsed(document: str, sha256: str) -> Entry | None:
    if hashlib.sha256(document.encode()).hexdigest() != sha256:
        return None
    try:
        fields: dict[str, Any] = json.loads(document)
        if fields.pop("format") != FORMAT:
            return None
        purpose, spend = Purpose(**fields.pop("purpose")), Spend(**fields.pop("spend"))
        return Entry(purpose=purpose, spend=spend, sha256=sha256, **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _members_of(blob: bytes) -> Members:
    return frozenset(blob[at : at + MEMBER_BYTES] for at in range(0, len(blob), MEMBER_BYTES))


def _key_in(file: Path) -> bytes | None:
    """The key; None where there is none of its length."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_key(f"a key that cannot be read ({type(error).__name__})") from None
    if len(content) != KEY_BYTES:
        raise _no_key("a key of another length")
    return content


def _no_key(found: str) -> PolicyError:
    return PolicyError(
        "FECG-433",
        "key of the ledger",
        found=found,
        expected=f"the {KEY_BYTES} bytes of ledger.key that were made with it",
        fix="Bring it back from a backup: without it the ledger does not know its patients again.",
    )


def _not_written(error: Exception) -> PolicyError:
    return PolicyError(
        "FECG-436",
        "ledger of the site",
        found=f"entries that cannot be written ({type(error).__name__})",
        expected="a disk with room, and nobody else who writes to it",
        fix="Free space on that disk; what is not in the ledger is not released.",
    )
