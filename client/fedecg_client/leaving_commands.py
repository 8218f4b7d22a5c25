"""What the commands about what leaves a site do: egress, approve, withdraw.

In:  parsed options. Out: text or one JSON document on stdout, an exit status. Called by `fedecg_client.cli`.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedecg.errors import PolicyError
from fedecg.files import in_words
from fedecg.privacy.names import one_form
from fedecg_client.commands import not_a_folder

__all__ = ["approve", "egress", "withdraw"]

Options = argparse.Namespace
NOT_DONE = 1


def egress(options: Options) -> int:
    """Show what has left."""
    from fedecg_client.departed import departure_lines
    from fedecg_client.departure import egress_record
    from fedecg_client.folder import open_site
    from fedecg_client.preflight.report import printable

    site = open_site(options.dir)
    entries = egress_record(site.folder).read(options.run, options.study)
    if options.json:
        print(json.dumps({"site": site.settings.name, "messages": list(entries)}, indent=2))
        return 0
    print("\n".join(map(printable, departure_lines(entries))))
    return 0


def approve(options: Options) -> int:
    """Show what waits to leave, and let it, if whoever looks says so."""
    from fedecg_client import departure
    from fedecg_client.departed import held_lines
    from fedecg_client.folder import open_site, study_name
    from fedecg_client.preflight.report import printable

    not_a_folder(options, "STUDY", options.study)
    site, study = open_site(options.dir), study_name(options.study)
    held = departure.held_message(site.folder, study)
    if held is None:
        raise PolicyError(
            "FECG-451",
            f"message of study {study}",
            found="none that waits",
            expected='one that privacy.approve = "first-round" holds back',
            fix="It comes when the coordinator asks; fedecg-client egress shows what has left already.",
        )
    print("This would leave, and after it further messages of its kind for this lock without being asked:\n")
    print("\n".join(map(printable, held_lines(held))))
    if not options.yes and not _agreed("\nLet it leave? [y/N] "):
        print("it stays here; the coordinator goes on without this site")
        return NOT_DONE
    departure.approve(site.folder, study, held)
    print("it leaves when the coordinator asks again, within half a minute if it still waits for it")
    return 0


def _agreed(question: str) -> bool:
    """Nobody there to answer is a no."""
    print(question, end="", flush=True)
    answer: Any = sys.stdin.readline()
    return str(answer).strip().lower() in {"y", "yes"}


def withdraw(options: Options) -> int:
    """Take patients out of everything from now on, and their signals out of the store."""
    from fedecg.privacy.withdrawal import withdraw as remember
    from fedecg.signals.purge import purge_rows
    from fedecg_client import departure
    from fedecg_client.folder import made_state, open_site

    not_a_folder(options, "PATIENTS-FILE", options.patients)
    site = open_site(options.dir)
    names = _named_in(options.patients)
    patients, records = _in_table(site.settings.cohort, names)
    print(f"{len(names)} patients are named; {patients} of them are in the table, with {len(records)} ECGs")
    for line in _consequences(patients, site.settings.privacy.threshold_patients):
        print(line)
    if not options.yes and not _agreed("\nWithdraw them? [y/N] "):
        print("nothing was changed")
        return NOT_DONE
    state = made_state(site.folder)
    new = remember(site.folder, names)
    _forget_replies(state)
    purged = purge_rows(site.settings.store, records)
    departure.note(site.folder, f"{new} patients withdrew, {patients} of those named are in the table")
    print(f"{new} patients have withdrawn, {purged} ECGs were overwritten in the store")
    return 0


def _named_in(file: Path) -> frozenset[str]:
    """One patient a line, as the column `patient` of the table has them; blank lines and # do not count.

    Raises:
        PolicyError: FECG-451 nobody is named, or the file cannot be read.
    """
    found = "no patient in it"
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        names = frozenset(one_form(line) for line in lines if line and not line.startswith("#"))
    except (OSError, UnicodeDecodeError) as error:
        names, found = frozenset(), in_words(error)
    if not names:
        raise PolicyError(
            "FECG-451",
            "patients who withdraw",
            found=found,
            expected="a text file with one patient a line, as the column patient of the table has them",
            fix="Write that file; remove it when it has been used.",
        )
    return names


def _in_table(table: str, names: frozenset[str]) -> tuple[int, list[int]]:
    """How many of these patients the table has, and their rows of the store."""
    from fedecg.cohort import read_cohort

    cohort = read_cohort(table)
    own = [one_form(name) for name in cohort.names or ()]
    rows = [row for row, name in enumerate(own) if name in names]
    return len({own[row] for row in rows}), [int(cohort.record[row]) for row in rows]


def _consequences(patients: int, least: int) -> list[str]:
    told = [
        "From the next round on they are in no training, no sum and no check of this site. Their signals are",
        "overwritten in the store; the table and the recordings are yours to clear. What has left stays where it is:",
        "weights that they helped to train, and sums; the ledger keeps what was spent.",
    ]
    if 0 < patients < least:
        told.append(
            f"They are fewer than {least}: whoever has this site's plain sums from before and after can subtract them."
        )
    return told


def _forget_replies(state: Path) -> None:
    """Replies and half a round that were made with them."""
    for folder in ("replies", "checkpoint"):
        for file in (state / folder).glob("*"):
            with suppress(OSError):
                file.unlink()
