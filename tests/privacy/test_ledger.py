"""A site's ledger: what it counts, whom it knows again, what it refuses; and that damage of any kind ends in a code."""

import dataclasses
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fedecg.cohort import read_cohort, write_cohort
from fedecg.errors import PolicyError
from fedecg.privacy.accountant import Plan, Spend, epsilon_of, planned_noise
from fedecg.privacy.book import Book
from fedecg.privacy.budget import study_noise
from fedecg.privacy.ledger import (
    Head,
    Purpose,
    open_ledger,
    patients_by_part,
    refuse_if_behind,
)

DELTA = 1e-5
ALIGN, SURVIVAL = Purpose("hf", "first", "align", 1), Purpose("hf", "first", "survival", 1)
TRAINING, HAZARD = Spend("training", "train", 2.0, 0.1, 20), Spend("hazard", "train", 6.0)
HISTOGRAM = Spend("histogram", "test", 3.0)
SECRET = "patient-4711"


def spend(
    folder: Path, *spends: Spend, of: dict[str, list[str]] | None = None, purpose=ALIGN, epsilon=50.0
) -> Head:
    of = of or {"train": ["1", "2"], "test": ["3"]}
    with open_ledger(folder) as ledger:
        patients = {part: ledger.pseudonyms(names) for part, names in of.items()}
        return ledger.spend(purpose, spends, patients, epsilon, DELTA)


def spent(folder: Path, *names: str) -> float:
    with open_ledger(folder) as ledger:
        return ledger.epsilon({"train": ledger.pseudonyms(names)}, DELTA)


def refusal(act, *arguments, **more) -> PolicyError:
    with pytest.raises(PolicyError) as refused:
        act(*arguments, **more)
    assert refused.value.exit_status == 4
    return refused.value


def look(folder: Path) -> Head:
    with open_ledger(folder) as ledger:
        return ledger.head


@pytest.fixture
def used(tmp_path) -> Path:
    for number in range(3):
        spend(tmp_path, TRAINING, HAZARD, HISTOGRAM, purpose=Purpose("hf", "first", "align", number))
    return tmp_path


# What it counts


def test_restarts_cost_what_one_run_costs_to_the_last_bit(used):
    assert look(used).sequence == 9
    once = epsilon_of(
        [Spend("training", "train", 2.0, 0.1, 60), Spend("hazard", "train", 6.0, 1.0, 3)], DELTA
    )
    assert spent(used, "1") == spent(used, "2") == pytest.approx(once, abs=1e-9)
    assert spent(used, "3") == pytest.approx(epsilon_of([HISTOGRAM] * 3, DELTA), abs=1e-9)
    assert spent(used, "4") == spent(used) == 0.0


def test_studies_runs_and_parts_add_up_for_whoever_is_in_both_and_for_nobody_else(tmp_path):
    spend(tmp_path, TRAINING, of={"train": ["a", "b"]})
    spend(tmp_path, HAZARD, of={"train": ["b", "c"]}, purpose=Purpose("other", "second", "survival", 7))
    spend(tmp_path, HISTOGRAM, of={"test": ["b"]}, purpose=Purpose("third", "x", "evaluate", 0))
    assert spent(tmp_path, "a") == pytest.approx(epsilon_of([TRAINING], DELTA))
    assert spent(tmp_path, "c") == pytest.approx(epsilon_of([HAZARD], DELTA))
    everything = epsilon_of([TRAINING, HAZARD, HISTOGRAM], DELTA)
    assert spent(tmp_path, "b") == spent(tmp_path, "a", "b", "c") == pytest.approx(everything)


def test_what_is_released_together_counts_for_its_own_part_and_twice_for_whoever_is_in_two(tmp_path):
    head = spend(tmp_path, HAZARD, HISTOGRAM, of={"train": ["a", "b"], "test": ["b", "c"]})
    assert head.sequence == 2
    assert spent(tmp_path, "a") == pytest.approx(epsilon_of([HAZARD], DELTA))
    assert spent(tmp_path, "b") == pytest.approx(epsilon_of([HAZARD, HISTOGRAM], DELTA))


def test_a_release_that_would_pass_the_budget_of_a_single_patient_is_refused_and_not_written(tmp_path):
    spend(tmp_path, TRAINING, of={"train": ["a"]})
    both = epsilon_of([TRAINING, HAZARD], DELTA)
    budget = both - 1e-6
    error = refusal(spend, tmp_path, HAZARD, of={"train": ["a", "b"]}, purpose=SURVIVAL, epsilon=budget)
    assert str(error) == (
        f"FECG-434 privacy budget, survival round 1 of study hf: found an epsilon of {both:.3f} with this release;"
        f" expected at most {budget:g} (privacy.epsilon of site.toml) at delta 1e-05."
        " The budget of these patients is used up; nothing was computed or sent."
    )
    assert look(tmp_path).sequence == 1
    spend(tmp_path, HAZARD, of={"train": ["b"]}, epsilon=budget)
    spend(tmp_path, HAZARD, of={"train": ["a", "b"]}, epsilon=epsilon_of([TRAINING, HAZARD, HAZARD], DELTA))


def test_of_releases_that_do_not_fit_together_none_is_written(tmp_path):
    limit = epsilon_of([HISTOGRAM], DELTA)
    loud = Spend("training", "train", 0.5)
    error = refusal(spend, tmp_path, HISTOGRAM, loud, of={"train": ["a"], "test": ["b"]}, epsilon=limit)
    assert error.code == "FECG-434"
    assert look(tmp_path).sequence == 0


def test_a_release_without_noise_fits_into_no_budget(tmp_path):
    assert refusal(spend, tmp_path, Spend("events", "train", 0.0), epsilon=1e300).code == "FECG-434"
    assert refusal(spend, tmp_path, Spend("events", "train", float("nan")), epsilon=1e300).code == "FECG-434"


# Whom it knows


def test_no_name_is_in_the_folder_and_another_site_has_other_pseudonyms(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        spend(folder, HAZARD, of={"train": [SECRET]})
        for file in folder.iterdir():
            assert SECRET.encode() not in file.read_bytes()
    sets = []
    for folder in folders:
        with open_ledger(folder) as ledger:
            assert ledger.patients == ledger.patients_of("train")
            assert ledger.patients_of("test") == frozenset()
            sets.append(ledger.patients)
    assert len(sets[0]) == len(sets[1]) == 1
    assert sets[0] != sets[1]


TABLE = "record,patient,part,event,follow_up_days,age_years,female,codes\n"
ROWS = [
    "{},city-7,train,1,10.0,60.0,1.0,{{}}\n",
    "{},city-8,train,0,20.0,61.0,0.0,{{}}\n",
    "{},city-9,test,0,5.0,70.0,1.0,{{}}\n",
]


def table(folder: Path, rows: list[str]) -> Path:
    file = folder / "cohort.csv"
    file.write_text(TABLE + "".join(row.format(number) for number, row in enumerate(rows)))
    return file


def test_patients_are_known_again_when_rows_of_their_table_are_moved_or_added(tmp_path):
    cohort = read_cohort(table(tmp_path, ROWS))
    with open_ledger(tmp_path) as ledger:
        before = patients_by_part(ledger, cohort)
        ledger.spend(ALIGN, [HAZARD], before, 50.0, DELTA)
    new = "{},city-1,train,0,20.0,61.0,0.0,{{}}\n"
    moved = read_cohort(table(tmp_path, [new, *reversed(ROWS)]))
    assert (
        moved.patient[np.array(moved.names) == "city-7"] != cohort.patient[np.array(cohort.names) == "city-7"]
    )
    with open_ledger(tmp_path) as ledger:
        after = patients_by_part(ledger, moved)
        assert after["train"] > before["train"]
        assert after["test"] == before["test"]
        assert ledger.epsilon({"train": after["train"] - before["train"]}, DELTA) == 0
        assert ledger.epsilon({"train": before["train"]}, DELTA) > 0


@pytest.mark.parametrize("written", ["7", "007", " 7", "+7", "7.0", "7.", "0000000007.00", "\uff17"])
def test_a_number_is_the_same_patient_however_a_table_writes_it(used, written):
    """Spreadsheets make 7 of 007, and 7.0 of 7 beside a blank: a ledger that took them for others would forget."""
    with open_ledger(used) as ledger:
        assert ledger.pseudonyms([written]) == ledger.pseudonyms(["7"])


@pytest.mark.parametrize("other", ["70", "7.1", "7a", "-7", "7.0.0", "1e7", "0", "7 7"])
def test_other_numbers_and_words_are_other_patients(used, other):
    with open_ledger(used) as ledger:
        assert ledger.pseudonyms([other]) != ledger.pseudonyms(["7"])
        assert ledger.pseudonyms(["0"]) == ledger.pseudonyms(["000"]) != ledger.pseudonyms(["."])


def test_names_go_with_their_rows_and_are_shown_and_written_nowhere(tmp_path):
    cohort = read_cohort(table(tmp_path, ROWS))
    assert cohort.names == ("city-7", "city-8", "city-9")
    some = cohort.select(np.array([2, 0]))
    assert some.names == ("city-9", "city-7")
    assert cohort.patient_names(np.array([True, False, True])) == {"city-7", "city-9"}
    assert "city-7" not in repr(cohort)
    write_cohort(cohort, tmp_path / "again.csv")
    assert "city-7" not in (tmp_path / "again.csv").read_text()
    unnamed = dataclasses.replace(cohort, names=None)
    assert unnamed.patient_names(np.array([0, 0, 2])) == {"0", "2"}
    assert unnamed.select(np.array([1])).names is None


def test_whoever_stands_in_align_is_of_the_training_part(tmp_path):
    align = "{},city-7,align,,,60.0,1.0,{{}}\n{},city-6,align,,,60.0,1.0,{{}}\n".replace(
        "{},city-6", "9,city-6"
    )
    cohort = read_cohort(table(tmp_path, [*ROWS, align]))
    with open_ledger(tmp_path) as ledger:
        patients = patients_by_part(ledger, cohort)
        assert patients["train"] == ledger.pseudonyms(["city-6", "city-7", "city-8"])
        assert patients["validation"] == frozenset()


# Damage


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


# A whole study


PLAN = Plan(steps=40, sampling_rate=1.0, hazard_releases=2, sums_share=0.2)
OF = {"train": ["1", "2"], "validation": ["3"], "test": ["4"]}


def noise_for(folder: Path, run: str, epsilon: float, of: dict[str, list[str]] = OF):
    with open_ledger(folder) as ledger:
        patients = {part: ledger.pseudonyms(names) for part, names in of.items()}
        return study_noise(ledger, PLAN, patients, "hf", run, epsilon, DELTA)


def test_a_study_on_new_patients_gets_the_noise_of_its_plan_and_keeps_it_to_its_end(tmp_path):
    noise = noise_for(tmp_path, "first", 4.0)
    assert noise == planned_noise(PLAN, 4.0, DELTA)
    for release in PLAN.spends(noise):
        spend(tmp_path, release, of=OF, purpose=Purpose("hf", "first", "survival", 1), epsilon=4.0)
        assert noise_for(tmp_path, "first", 4.0) == noise
    one_more = Spend("training", "train", noise.training)
    assert refusal(spend, tmp_path, one_more, of=OF, epsilon=4.0).code == "FECG-434"


def test_a_second_study_gets_what_is_left_and_is_refused_where_that_is_too_little(tmp_path):
    first = noise_for(tmp_path, "first", 4.0)
    spend(tmp_path, *PLAN.spends(first), of=OF, epsilon=4.0)
    error = refusal(noise_for, tmp_path, "second", 4.0)
    assert error.code == "FECG-437"
    assert (
        "study hf: found an epsilon of 4.000 spent on these patients before; expected room for at least 0.4"
        in str(error)
    )
    assert "(planned) within the budget of 4 (privacy.epsilon). Raise privacy.epsilon" in str(error)
    second = noise_for(tmp_path, "second", 6.0)
    spend(tmp_path, *PLAN.spends(second), of=OF, purpose=Purpose("hf", "second", "x", 1), epsilon=6.0)
    assert 5.99 < spent(tmp_path, "1") <= 6.0
    new_but_for_one = {"train": ["5", "2"], "validation": ["6"], "test": ["7"]}
    assert refusal(noise_for, tmp_path, "third", 6.0, new_but_for_one).code == "FECG-437"
    others = {part: [f"new-{name}" for name in names] for part, names in OF.items()}
    assert noise_for(tmp_path, "third", 4.0, others) == first
