"""A ledger that was edited, cut, lost, copied or written by two at once ends in a code."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from ledgers import ALIGN, DELTA, HAZARD, TRAINING, look, refusal, spend, spent

from fedecg.errors import PolicyError
from fedecg.privacy.book import Book
from fedecg.privacy.ledger import Head, open_ledger, refuse_if_behind


def edit(folder: Path, statement: str) -> None:
    """As somebody would who has the file and knows SQL."""
    with sqlite3.connect(folder / "ledger.sqlite") as book:
        book.execute("DROP TRIGGER no_change")
        book.execute("DROP TRIGGER no_removal")
        book.execute(statement)
    book.close()


REHASHED = (
    """UPDATE entries SET document = replace(document, '"noise_multiplier":3.0', '"noise_multiplier":9.0')"""
)
EDITS = {
    "another noise": "UPDATE entries SET document = replace(document, '2.0', '9.0') WHERE sequence = 4",
    "another hash": f"UPDATE entries SET sha256 = '{'0' * 64}' WHERE sequence = 4",
    "another number": "UPDATE entries SET sequence = 77 WHERE sequence = 9",
    "a gap": "DELETE FROM entries WHERE sequence = 5",
    "without its beginning": "DELETE FROM entries WHERE sequence = 1",
    "a cut end": "DELETE FROM entries WHERE sequence = 9",
    "nothing left": "DELETE FROM entries",
    "an entry more": "INSERT INTO entries SELECT 10, document, sha256 FROM entries WHERE sequence = 9",
    "patients gone": "DELETE FROM patients",
    "other patients": "UPDATE patients SET members = zeroblob(32)",
    "no seal": "DELETE FROM seal",
    "another seal": "UPDATE seal SET sequence = 8",
    "text for patients": "UPDATE patients SET members = 'nobody'",
    "a table gone": "DROP TABLE entries",
}


@pytest.mark.parametrize("statement", EDITS.values(), ids=EDITS)
def test_an_edited_ledger_is_refused(used, statement):
    edit(used, statement)
    error = refusal(look, used)
    assert error.code == "FECG-432"
    refusal(spend, used, HAZARD)


def test_a_chain_computed_anew_without_the_key_is_refused(used):
    with open_ledger(used) as ledger:
        shorter = ledger.entries[:-1]
    edit(used, "DELETE FROM entries WHERE sequence = 9")
    with sqlite3.connect(used / "ledger.sqlite") as book:
        book.execute("UPDATE seal SET sequence = 8, sha256 = ?", (shorter[-1].sha256,))
    book.close()
    assert str(refusal(look, used)) == (
        "FECG-432 ledger of the site: found another end than the sealed one; expected the entries as they were"
        " written, each following the one before. Bring back the latest copy of ledger.sqlite and ledger.key; nothing"
        " is released without them."
    )


def test_entries_can_be_neither_changed_nor_removed_in_passing(used):
    book = sqlite3.connect(used / "ledger.sqlite")
    for statement in ("UPDATE entries SET sha256 = ''", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            book.execute(statement)
    book.close()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_truncated_file_is_refused(used, share):
    file = used / "ledger.sqlite"
    os.truncate(file, int(share * file.stat().st_size))
    codes = (
        {"FECG-432", "FECG-433"} if share == 0.999 else {"FECG-432"}
    )  # the seal's own key may have lost its end
    assert refusal(look, used).code in codes
    assert refusal(spend, used, HAZARD).code in codes


def test_a_file_that_is_no_database_is_refused(used):
    (used / "ledger.sqlite").write_bytes(b"not a ledger" * 1000)
    assert refusal(look, used).code == "FECG-432"
    (used / "ledger.key").unlink()
    assert refusal(look, used).code == "FECG-432"


def test_a_flipped_byte_is_refused_or_harmless(used):
    """Free pages and unused bytes exist; what is read is never another account."""
    expected, whole = spent(used, "1"), (used / "ledger.sqlite").read_bytes()
    codes = []
    for at in range(0, len(whole), 211):
        (used / "ledger.sqlite").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = spent(used, "1")
        except PolicyError as error:
            codes.append(error.code)
        else:
            assert found == expected
    assert set(codes) <= {"FECG-432", "FECG-433", "FECG-436"}
    assert len(codes) > 10


def test_a_ledger_that_is_gone_is_refused_while_its_key_is_there(used):
    (used / "ledger.sqlite").unlink()
    assert "found no entries beside their key" in str(refusal(look, used))


@pytest.mark.parametrize("content", [None, b"", b"short", b"\0" * 32])
def test_a_missing_or_another_key_is_refused_and_not_made_anew(used, content):
    key = used / "ledger.key"
    key.unlink() if content is None else key.write_bytes(content)
    error = refusal(look, used)
    assert error.code == "FECG-433"
    assert "Bring it back from a backup" in str(error)
    assert key.exists() == (content is not None)


def test_a_kill_while_it_is_made_leaves_what_can_be_made_again(tmp_path):
    look(tmp_path)
    (tmp_path / "ledger.key").unlink()  # it is written last
    assert look(tmp_path) == Head()
    spend(tmp_path, HAZARD)
    other = tmp_path / "other"
    other.mkdir()
    (other / "ledger.sqlite").touch()
    assert look(other) == Head()


def test_key_and_book_are_for_their_owner_alone_and_an_entry_is_on_the_disk(used):
    for name in ("ledger.key", "ledger.sqlite"):
        assert (used / name).stat().st_mode & 0o077 == 0
    book = Book(used)
    assert book._file.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert book._file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    book.close()


def test_two_at_once_end_in_a_code(used):
    with open_ledger(used):
        assert str(refusal(look, used)).startswith(
            "FECG-431 ledger of the site: found another process that has it open; expected one process at a time"
        )
    assert look(used).sequence == 9


def test_two_that_pass_the_lock_cannot_both_write(used):
    """As on a network disk without locks: the second entry of one number is refused."""
    first, second = Book(used), Book(used)
    from fedecg.privacy.ledger import Ledger

    for number, book in enumerate((first, second)):
        ledger = Ledger(book)
        patients = {"train": ledger.pseudonyms(["1"])}
        if number == 0:
            ledger.spend(ALIGN, [HAZARD], patients, 50.0, DELTA)
        else:
            error = refusal(ledger.spend, ALIGN, [HAZARD], patients, 50.0, DELTA)
            assert error.code == "FECG-436"
    first.close()
    second.close()
    assert look(used).sequence == 10


def test_a_full_disk_ends_in_a_code_and_the_entries_stay(used):
    with open_ledger(used) as ledger:
        ledger._book._file.execute("PRAGMA max_page_count = 1")  # SQLite's own word for a disk without room
        patients = {"train": ledger.pseudonyms([str(n) for n in range(5000)])}
        error = refusal(ledger.spend, ALIGN, [HAZARD], patients, 50.0, DELTA)
        assert str(error) == (
            "FECG-436 ledger of the site: found entries that cannot be written (OperationalError); expected a disk with"
            " room, and nobody else who writes to it. Free space on that disk; what is not in the ledger is not"
            " released."
        )
        assert ledger.head.sequence == 9
    assert look(used).sequence == 9


# Behind the coordinator


def test_an_older_copy_is_refused_and_the_latest_is_taken(used, tmp_path_factory):
    old = tmp_path_factory.mktemp("old") / "site"
    shutil.copytree(used, old)
    seen = spend(used, HAZARD)
    refuse_if_behind(used, seen)
    refuse_if_behind(
        used, Head(9, look(old).sha256)
    )  # the reply of a round that the coordinator did not take
    assert str(refusal(refuse_if_behind, old, seen)) == (
        "FECG-435 ledger of the site: found 9 entries, without the one that the coordinator saw last (10); expected the"
        " ledger with which this site answered before. An older copy was restored, or another one: bring back the"
        " latest. Nothing leaves until then."
    )
    spend(old, TRAINING)
    assert look(old).sequence == seen.sequence
    assert refusal(refuse_if_behind, old, seen).code == "FECG-435"  # as long, but another one


def test_a_ledger_that_is_not_there_is_behind_and_a_look_makes_none(tmp_path):
    refuse_if_behind(tmp_path, None)
    refuse_if_behind(tmp_path, Head())
    assert refusal(refuse_if_behind, tmp_path, Head(1, "0" * 64)).code == "FECG-435"
    assert list(tmp_path.iterdir()) == []
