"""Everything that may die, at every moment of a study: a table of cases, each of which must end as if nothing had been.

    python -m tests.deployment.chaos --out FOLDER [--shard 1/4] [--only TEXT]

In:  the table. Out: FOLDER/chaos.jsonl, a line a finished case; cases that stand there are not run again; a line a
failure in FOLDER/failures.jsonl. A case is a deployment of its own: two hospitals that reach the coordinator through a
TCP line, a quorum of both, a keeper that restarts what dies as the unit files do. It must end `completed` with the
weights, rounds and figures of the same study in one process, within a bounded time; the rounds that were booked before
the disturbance must stand unchanged, and nothing may be left running. Where the documents promise a code, the case
waits for it, does what its fix says, and the same must follow.

Moments are read from the files that the processes write, never from a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from tcp_line import Line, Trap  # the path stands above
from whole_study import (
    Deployment,
    Hospitals,
    Outcome,
    make_hospitals,
    nothing_left,
    run_in_one_process,
    tiny_study,
    wait_until,
    without_times,
)

WITHIN_S = 300.0  # an undisturbed study: 30 s on two quiet cores
SITE = "city"  # to which things happen
REPLY_BYTES = 400_000  # about 100 thousand parameters of the survival stage
MBIT_PER_S = 125_000.0
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
LOOK_S = 0.003


class NotTestedError(Exception):
    """This machine lacks what the case needs; its argument says what."""


@dataclass
class World:
    """A case's deployment and its lines."""

    deployment: Deployment
    lines: dict[str, Line]
    booked: list[dict[str, Any]] = field(default_factory=list)  # rounds.json before the disturbance
    notes: list[str] = field(default_factory=list)
    _pids: dict[str, int] = field(default_factory=dict)
    _looked_s: float = 0.0

    def until(self, moment: Callable[[World], Any], within_s: float = WITHIN_S) -> Any:
        """Wait for a moment, keeping everything running."""
        end = time.monotonic() + within_s
        while not (found := moment(self)):
            assert time.monotonic() < end, f"never came: {moment.__name__}; {self.deployment.describe()}"
            assert not self.deployment.ended, f"ended before {moment.__name__}; {self.deployment.describe()}"
            self.deployment.tend()
            time.sleep(LOOK_S)
        return found

    def book(self) -> None:
        """Remember what has been acknowledged so far."""
        self.booked = self.deployment.rounds()

    def pid(self, victim: str) -> int:
        """Of a victim, 0 if it does not run; children are looked for a few times a second."""
        deployment = self.deployment
        if victim == "supervisor":
            return deployment.server.pid if deployment.server.alive else 0
        if victim == "agent":
            return deployment.sites[SITE].pid if deployment.sites[SITE].alive else 0
        if time.monotonic() - self._looked_s > 0.3:
            self._looked_s = time.monotonic()
            self._pids = {**deployment.children(), "worker": deployment.worker(SITE)}
        return self._pids.get(victim, 0)

    def kill(self, *victims: str) -> None:
        """kill -9, all at once."""
        pids = [self.pid(victim) for victim in victims]
        self.book()
        assert all(pids), f"not running: {dict(zip(victims, pids, strict=True))}"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- moments -------------------------------------------------------------------------------------------------------


def at(phase: str, number: int = 0) -> Callable[[World], bool]:
    """The coordinator is in a phase, and in one of its rounds."""

    def moment(world: World) -> bool:
        status = world.deployment.status()
        return status.get("phase") == phase and status.get("round") == number and not late_status(world)

    moment.__name__ = f"{phase} {number}"
    return moment


def late_status(world: World) -> bool:
    """A status of a study that has already failed."""
    return world.deployment.status().get("state") == "failed"


def before_join(victim: str) -> Callable[[World], bool]:
    """The victim runs and nobody has joined."""

    def moment(world: World) -> bool:
        return bool(world.pid(victim)) and not world.deployment.status().get("sites")

    return moment


def task_sent(world: World) -> bool:
    """A survival task of the first round has been taken by the site."""
    in_hand = world.deployment.site_state(SITE, "in-hand.json")
    return at("survival", 1)(world) and bool(in_hand)


def mid_training(world: World) -> bool:
    """The site is at the steps of the second survival round."""
    said = world.deployment.site_state(SITE, "progress.json")
    return said.get("phase") == "survival" and said.get("round") == 2 and said.get("steps", 0) > 0


def training(world: World) -> bool:
    """The site is at the steps of the first survival round."""
    said = world.deployment.site_state(SITE, "progress.json")
    return said.get("phase") == "survival" and said.get("round") == 1 and said.get("steps", 0) > 0


def reply_half_sent(world: World) -> bool:
    """Half of the reply to the first survival round is at the coordinator, and the line holds the rest."""
    line = world.lines[SITE]
    if line.trap is None and training(world):
        line.trap = Trap(after=REPLY_BYTES // 2)
    return line.trap is not None and line.trap.sprung.is_set()


def writing_state(world: World) -> bool:
    """The first survival round is being booked: its checkpoint is half on the disk, or has just replaced the other."""
    if not at("survival", 1)(world):
        return False
    state = world.deployment.run / "state"
    stood = (state / "checkpoint.safetensors").stat().st_mtime_ns
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        names = os.listdir(state)  # noqa: PTH208 (every microsecond counts)
        if any(name.endswith(".part") for name in names):
            world.notes.append("a .part stood")
            return True
        with suppress(FileNotFoundError):
            if (state / "checkpoint.safetensors").stat().st_mtime_ns != stood:
                world.notes.append("just replaced")
                return True
        time.sleep(0.0002)
    return False


between_phases, last_evaluation = at("survey"), at("evaluate")

# --- what happens --------------------------------------------------------------------------------------------------

Happening = Callable[[World], None]


def killed(victims: tuple[str, ...], moment: Callable[[World], Any]) -> Happening:
    """kill -9 at a moment; a line that holds half a reply is cut then."""

    def happen(world: World) -> None:
        for victim in victims:  # known before the moment comes
            world.until(lambda world, victim=victim: world.pid(victim))  # type: ignore[misc]
        world.until(moment)
        world.kill(*victims)
        if world.lines[SITE].trap:
            world.lines[SITE].trap.release(cut=True)

    return happen


def killed_twice(world: World) -> None:
    """The worker dies of the same message twice: the coordinator gets an error and asks again."""
    world.until(lambda world: world.pid("worker"))
    first = 0
    for _ in range(2):
        world.until(
            lambda world: mid_training(world) and world.pid("worker") not in (0, first)  # noqa: B023
        )
        first = world.pid("worker")
        world.kill("worker")
    world.until(
        lambda world: sum(event["event"] == "worker-died" for event in events_of(world)) == 2, within_s=30.0
    )


def stopped_and_started(victim: str) -> Happening:
    """SIGTERM in the middle of a round, and the same command again."""

    def happen(world: World) -> None:
        service = world.deployment.server if victim == "supervisor" else world.deployment.sites[SITE]
        world.until(mid_training)
        world.book()
        assert service.stop(30.0) == 0, world.deployment.describe()
        service.restarts = True
        service.start()

    return happen


def cut_at(byte: int, up: bool) -> Happening:
    """The site's line is cut when so many bytes have gone."""

    def happen(world: World) -> None:
        trap = world.lines[SITE].trap
        assert trap is not None
        world.until(lambda _: trap.sprung.is_set())
        world.book()
        trap.release(cut=True)

    def prepare(world: World) -> None:
        world.lines[SITE].trap = Trap(after=byte, up=up)

    happen.prepare = prepare  # type: ignore[attr-defined]
    return happen


def stalled(seconds: float) -> Happening:
    """Nothing passes for a while, in the middle of a reply; no connection is cut."""

    def happen(world: World) -> None:
        world.until(reply_half_sent)
        world.book()
        line, end = world.lines[SITE], time.monotonic() + seconds
        line.flows.clear()
        world.until(lambda _: time.monotonic() > end)
        line.flows.set()
        assert line.trap
        line.trap.release(cut=False)

    return happen


def late(world: World) -> None:
    """Half a reply arrives by an old connection when the site has long come back by a new one."""
    line = world.lines[SITE]
    world.until(training)
    world.book()
    trap = line.trap = Trap(after=REPLY_BYTES // 2, late_s=5.0)
    world.until(lambda _: trap.sprung.is_set())


def reordered(world: World) -> None:
    """All connections are cut, and those that come instead arrive in the opposite order."""
    world.until(mid_training)
    world.book()
    for line in world.lines.values():
        line.reorders = True
        line.hang_up()


def throttled(world: World) -> None:
    """1 Mbit/s each way, for both sites, from the start."""
    world.until(at("survival", 1))
    world.book()


def _throttle(world: World) -> None:
    for line in world.lines.values():
        line.bytes_per_s = MBIT_PER_S


throttled.prepare = _throttle  # type: ignore[attr-defined]


def events_of(world: World) -> list[dict[str, Any]]:
    """state/events.jsonl of the site."""
    file = world.deployment.members[SITE].folder / "state" / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- disks ---------------------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system in memory over a folder, which a ballast fills to the last byte. Needs root.

    Args:
        folder: what is in it is moved onto the disk.
        megabytes: of the disk; never the machine's own disk.
    """

    def __init__(self, folder: Path, megabytes: int = 48) -> None:
        aside = folder.with_name(f"{folder.name}.aside")
        folder.rename(aside)
        folder.mkdir(mode=0o700)
        size = f"size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True)
        if done.returncode:
            folder.rmdir()
            aside.rename(folder)
            raise NotTestedError("no right to mount a small disk")
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self) -> None:
        """No byte is left."""
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def free(self) -> None:
        """Somebody has made room."""
        self.ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Keep nothing of it."""
        subprocess.run(["umount", "-l", self.folder], capture_output=True)


def disk_full(where: str, freed: bool, moment: Callable[[World], Any]) -> Happening:
    """A disk is full from a moment on; room is made when the documented code has been told, or never."""

    def prepare(world: World) -> None:
        deployment = world.deployment
        folder = (
            deployment.coordinator.folder if where == "coordinator" else deployment.members[SITE].folder
        )
        happen.disk = SmallDisk(folder)  # type: ignore[attr-defined]

    def happen(world: World) -> None:
        disk: SmallDisk = happen.disk  # type: ignore[attr-defined]
        world.until(moment)
        world.book()
        disk.fill()
        if not freed:
            return
        if where == "coordinator":
            _ends_with(world, "FECG-601", "FECG-684", "FECG-687")
            disk.free()
            _start_again(world, "resume")
        else:
            end = time.monotonic() + 15.0
            world.until(lambda _: time.monotonic() > end)
            disk.free()

    def clean(world: World) -> None:
        if disk := getattr(happen, "disk", None):
            disk.unmount()

    happen.prepare, happen.clean = prepare, clean  # type: ignore[attr-defined]
    return happen


def _ends_with(world: World, *codes: str) -> None:
    """The coordinator ends by itself and says one of these codes."""
    server = world.deployment.server
    server.restarts = False
    wait_until(lambda: not server.alive, WITHIN_S, world.deployment.describe)
    server.tend()
    said = server.log.read_text()
    told = [code for code in codes if code in said]
    assert told, f"none of {codes}: {world.deployment.describe()}"
    assert server.statuses[-1] not in (0, 5), server.statuses
    world.notes.append(f"ended with {told[0]}, status {server.statuses[-1]}")


def _start_again(world: World, command: str = "start") -> None:
    server = world.deployment.server
    server.command[1] = command
    server.statuses.append(1)
    server.restarts = True
    server._due_s = 0.0
    server.start()
    server.statuses.clear()


# --- clocks and databases ------------------------------------------------------------------------------------------


def wrong_clock(where: str, minutes: int) -> Happening:
    """A clock is off by ten minutes: the site says so, and comes in when it is set right."""

    def service_of(world: World) -> Any:
        return world.deployment.server if where == "coordinator" else world.deployment.sites[SITE]

    def prepare(world: World) -> None:
        if not FAKETIME.exists():
            raise NotTestedError("no libfaketime")
        shift = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{minutes:+d}m", "DONT_FAKE_MONOTONIC": "1"}
        service_of(world).environment = shift | {"FAKETIME_DONT_RESET": "1"}

    def happen(world: World) -> None:
        world.until(lambda world: world.deployment.site_state(SITE, "status.json").get("code") == "FECG-648")
        said = world.deployment.site_state(SITE, "status.json")["waiting-for"]
        assert "a signature whose time is off by more than five minutes" in said, said
        world.notes.append("FECG-648 told")
        service = service_of(world)
        service.stop(30.0)
        service.environment, service.restarts = {}, True
        service.start()
        service.statuses.clear()

    happen.prepare = prepare  # type: ignore[attr-defined]
    return happen


def database_truncated(live: bool) -> Happening:
    """Half of the SuperLink's database is lost: FECG-684, and what its fix says."""

    def happen(world: World) -> None:
        deployment = world.deployment
        database = deployment.coordinator.database
        world.until(mid_training)
        world.pid("superlink")
        if live:
            deployment.server.restarts = False
            world.kill("superlink")
        else:
            world.book()
            assert deployment.server.stop(30.0) == 0
        os.truncate(database, database.stat().st_size // 2)
        for part in ("-wal", "-shm"):
            database.with_name(database.name + part).unlink(missing_ok=True)
        if not live:
            deployment.server.start()
        _ends_with(world, "FECG-684")
        for part in deployment.coordinator.superlink.glob("database*"):
            if part.name != "database.made":
                part.rename(part.with_name(f"lost-{part.name}"))
        _start_again(world)

    return happen


# --- the table -----------------------------------------------------------------------------------------------------

VICTIMS = ("supervisor", "superlink", "host", "agent", "worker")
MOMENTS: dict[str, Callable[[World], Any]] = {
    "task-sent": task_sent,
    "mid-training": mid_training,
    "reply-half-sent": reply_half_sent,
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
    cases["disk full at a site for 15 s"] = disk_full("site", True, task_sent)
    cases["disk full at a site to the end"] = disk_full("site", False, task_sent)
    cases["clock of a site 10 min fast"] = wrong_clock("site", 10)
    cases["clock of a site 10 min slow"] = wrong_clock("site", -10)
    cases["clock of the coordinator 10 min fast"] = wrong_clock("coordinator", 10)
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
        return {"case": name, "outcome": f"not tested: {reason}", "seconds": 0.0, "notes": []}
    finally:
        for line in lines.values():
            line.close()
        getattr(happen, "clean", lambda _: None)(world)
    seconds = round(time.monotonic() - began, 1)
    return {"case": name, "outcome": "completed", "seconds": seconds, "notes": world.notes}


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
        assert without_times([last]) == without_times([rounds[len(settled)]]), "the last booked round has changed"
    world.notes.append(f"{len(world.booked)} rounds booked before")


def main(arguments: list[str] | None = None) -> int:
    """Run a shard."""
    parser = argparse.ArgumentParser("chaos", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard", default="1/1", metavar="K/N")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--keep", action="store_true", help="the folders of cases that went well, too")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    book, failures = options.out / "chaos.jsonl", options.out / "failures.jsonl"
    done = {json.loads(line)["case"] for line in book.read_text().splitlines()} if book.exists() else set()
    number, of = map(int, options.shard.split("/"))
    names = [name for name in list(CASES)[number - 1 :: of] if name not in done and options.only in name]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        bench = Bench.at(Path(scratch)) if names else None
        for count, name in enumerate(names):
            assert bench is not None
            folder = Path(scratch) / f"case-{count}"
            try:
                line, target = run_case(name, bench, folder), book
                if options.keep:
                    shutil.copytree(folder, options.out / "kept" / name.replace(" ", "-"), dirs_exist_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
            except Exception as error:
                failed += 1
                kept = options.out / "failed" / name.replace(" ", "-")
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("store", "database*", "ballast"))
                text = "".join(traceback.format_exception(error, limit=-3))
                line, target = {"case": name, "outcome": "FAILED", "why": text[-6000:]}, failures
            with target.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line["case"], line["outcome"], line.get("seconds", ""), *line.get("notes", []), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
