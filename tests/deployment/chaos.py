"""Everything that may die, at every moment of a study: a table of cases, each of which must end as if nothing had been.

    python -m tests.deployment.chaos --out FOLDER [--shard 1/4] [--only TEXT] [--allow-untested]

In:  the table. Out: FOLDER/chaos.jsonl, a line a finished case; cases that stand there are not run again; a line a
failure in FOLDER/failures.jsonl. What this machine cannot test (a clock to shift, a small disk) stands in neither, and
the end is 1 like that of a failure, unless that is allowed.

A case is a deployment of its own: two hospitals that reach the coordinator through a TCP line, a quorum of both, a
keeper that restarts what dies as the unit files do. It must end `completed` with the weights, rounds and figures of the
same study in one process, within a bounded time; the rounds that were booked before the disturbance must stand
unchanged, and nothing may be left running. Where the documents promise a code, the case waits for it, does what its fix
says, and the same must follow.

Moments are read from the files that the processes write, never from a clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from chaos_disturbances import (  # the path stands above
    Happening,
    NotTestedError,
    cut_at,
    database_truncated,
    disk_full,
    killed,
    killed_twice,
    late,
    reordered,
    stalled,
    stopped_and_started,
    throttled,
    wrong_clock,
)
from chaos_world import (
    WITHIN_S,
    World,
    aggregation,
    before_join,
    between_phases,
    last_evaluation,
    mid_training,
    reply_half_sent,
    task_sent,
    writing_state,
)
from tcp_line import Line
from whole_study import (
    Deployment,
    Hospitals,
    Outcome,
    make_hospitals,
    nothing_left,
    run_in_one_process,
    tiny_study,
    without_times,
)

BOOK, FAILURES = "chaos.jsonl", "failures.jsonl"
CHECKPOINT_BYTES = 400_000  # of about 100 thousand parameters
COMPLETED, FAILED, NOT_TESTED = "completed", "FAILED", "not tested"
VICTIMS = ("supervisor", "superlink", "host", "agent", "worker")
MOMENTS: dict[str, Callable[[World], Any]] = {
    "task-sent": task_sent,
    "mid-training": mid_training,
    "reply-half-sent": reply_half_sent,
    "aggregation": aggregation,
    "writing-state": writing_state,
    "between-phases": between_phases,
    "last-evaluation": last_evaluation,
}


def table() -> dict[str, Happening]:
    """Every case by its name."""
    cases: dict[str, Happening] = {}
    for name, moment in MOMENTS.items():
        for victim in VICTIMS:
            cases[f"kill {victim} at {name}"] = killed((victim,), moment)
    for victim in VICTIMS:
        cases[f"kill {victim} at before-join"] = killed((victim,), before_join(victim))
    cases["power cut at a site"] = killed(("agent", "worker"), mid_training)
    cases["power cut at the coordinator"] = killed(("supervisor", "superlink", "host"), mid_training)
    cases["power cut everywhere"] = killed(VICTIMS, mid_training)
    cases["worker killed twice by one message"] = killed_twice
    cases["coordinator stopped and started"] = stopped_and_started("supervisor")
    cases["site stopped and started"] = stopped_and_started("agent")
    for byte in (1_000, 30_000, 1_000_000):
        cases[f"line cut at byte {byte} up"] = cut_at(byte, up=True)
        cases[f"line cut at byte {byte} down"] = cut_at(byte, up=False)
    cases["line stalls 20 s"] = stalled(20.0)
    cases["line stalls 75 s"] = stalled(75.0)
    cases["late bytes of an old connection"] = late
    cases["connections reordered"] = reordered
    cases["1 Mbit per s"] = throttled
    cases["disk full at the coordinator in training"] = disk_full("coordinator", True, mid_training)
    cases["disk full at the coordinator between phases"] = disk_full("coordinator", True, between_phases)
    cases["disk too full for a checkpoint"] = disk_full(
        "coordinator", True, aggregation, CHECKPOINT_BYTES // 4
    )
    cases["disk full at a site for a round"] = disk_full("site", False, task_sent)
    cases["disk full at a site until it is told"] = disk_full("site", True, task_sent)
    cases["clock of a site 10 min fast"] = wrong_clock(10)
    cases["clock of a site 10 min slow"] = wrong_clock(-10)
    cases["clocks of all sites 10 min slow"] = wrong_clock(-10, "all sites")
    cases["clock of the coordinator 10 min fast"] = wrong_clock(10, "coordinator")
    cases["clock of the coordinator 10 min slow"] = wrong_clock(-10, "coordinator")
    cases["clock of the coordinator leaps 10 min ahead"] = wrong_clock(10, "coordinator", mid_training)
    cases["clock of the coordinator leaps 10 min back"] = wrong_clock(-10, "coordinator", mid_training)
    cases["clock of a site leaps 10 min ahead"] = wrong_clock(10, moment=mid_training)
    cases["database truncated while stopped"] = database_truncated(live=False)
    cases["database truncated while running"] = database_truncated(live=True)
    return cases


CASES = table()


# --- running -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What all cases share: hospitals' folders, and the outcome that every case must reach."""

    hospitals: Hospitals
    expected: Outcome

    @staticmethod
    def at(folder: Path) -> Bench:
        """Make them."""
        hospitals = make_hospitals(tiny_study("chaos"), folder / "hospitals")
        return Bench(hospitals, run_in_one_process(hospitals, folder / "reference"))


def run_case(name: str, bench: Bench, folder: Path) -> dict[str, Any]:
    """One case; a line for the book.

    Raises:
        AssertionError: it did not end as it must.
    """
    happen = CASES[name]
    deployment = Deployment(bench.hospitals, folder)
    lines = {site: Line(deployment.coordinator.settings.port) for site in deployment.sites}
    for site, line in lines.items():
        deployment.connect_by(site, line.address)
    world, began = World(deployment, lines), time.monotonic()
    try:
        getattr(happen, "prepare", lambda _: None)(world)
        with nothing_left(deployment):
            deployment.start()
            happen(world)
            status = deployment.run_to_the_end(WITHIN_S)
            assert status == 0, deployment.describe()
            check(world, bench.expected)
    except NotTestedError as reason:
        return {"case": name, "outcome": f"{NOT_TESTED}: {reason}", "seconds": 0.0, "notes": []}
    finally:
        for line in lines.values():
            line.close()
        getattr(happen, "clean", lambda _: None)(world)
    seconds = round(time.monotonic() - began, 1)
    return {"case": name, "outcome": COMPLETED, "seconds": seconds, "notes": world.notes}


def check(world: World, expected: Outcome) -> None:
    """The same end as without the disturbance, and nothing that was booked is lost or changed."""
    outcome, rounds = Outcome.of(world.deployment.run), world.deployment.rounds()
    assert outcome.status == "completed", outcome.status
    assert outcome.weights == expected.weights, "other weights"
    assert outcome.rounds == expected.rounds, "other rounds"
    assert outcome == expected, "other figures"
    if world.booked:  # the last may have been done again: same bits, other seconds
        *settled, last = world.booked
        assert rounds[: len(settled)] == settled, "a round that was booked has changed"
        assert without_times([last]) == without_times([rounds[len(settled)]]), (
            "the last booked round has changed"
        )
    world.notes.append(f"{len(world.booked)} rounds booked before")


def main(arguments: list[str] | None = None) -> int:
    """Run a shard."""
    parser = argparse.ArgumentParser("chaos", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard", default="1/1", metavar="K/N")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--keep", action="store_true", help="the folders of cases that went well, too")
    parser.add_argument(
        "--allow-untested", action="store_true", help="end with 0 although this machine cannot do some cases"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    done = finished(options.out / BOOK)
    number, of = map(int, options.shard.split("/"))
    names = [name for name in list(CASES)[number - 1 :: of] if name not in done and options.only in name]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        bench = Bench.at(Path(scratch)) if names else None
        for count, name in enumerate(names):
            assert bench is not None
            line = run_and_keep(name, bench, Path(scratch) / f"case-{count}", options.out, options.keep)
            lines.append(line)
            print(line["case"], line["outcome"], line.get("seconds", ""), *line.get("notes", []), flush=True)
    failed = sum(line["outcome"] == FAILED for line in lines)
    untested = sum(line["outcome"].startswith(NOT_TESTED) for line in lines)
    print(f"{len(lines)} cases, {failed} failed, {untested} not tested; {len(done)} were in the book")
    return 1 if failed or (untested and not options.allow_untested) else 0


def finished(book: Path) -> set[str]:
    """Cases that need not run again."""
    lines = [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []
    return {line["case"] for line in lines if line["outcome"] == COMPLETED}


def run_and_keep(name: str, bench: Bench, folder: Path, out: Path, keep: bool) -> dict[str, Any]:
    """One case, and its line where it belongs: in the book, among the failures, or nowhere if it was not tested."""
    try:
        line = run_case(name, bench, folder)
        if keep:
            shutil.copytree(folder, out / "kept" / name.replace(" ", "-"), dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:
        kept = out / "failed" / name.replace(" ", "-")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("store", "database*", "ballast"))
        text = "".join(traceback.format_exception(error, limit=-3))
        line = {"case": name, "outcome": FAILED, "why": text[-6000:]}
    if line["outcome"] in (COMPLETED, FAILED):
        with (out / (BOOK if line["outcome"] == COMPLETED else FAILURES)).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return line


if __name__ == "__main__":
    sys.exit(main())
