"""What happens to a case of chaos: kills, lines, disks, clocks, databases.

In:  a `World` and the moment to wait for. Out: a disturbance, done; where the documents promise a code, the code has
been told and its fix done. A disturbance may have `prepare`, called before anything starts, and `clean`, called last.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos_world import (
    REPLY_BYTES,
    SITE,
    WITHIN_S,
    World,
    at,
    events_of,
    mid_training,
    reply_half_sent,
    training,
    with_module,
)
from tcp_line import Trap
from whole_study import read_object, wait_until

MBIT_PER_S = 125_000.0
WRONG_CLOCK = Path(__file__).with_name("wrong_clock")


class NotTestedError(Exception):
    """This machine lacks what the case needs; its argument says what."""


Happening = Callable[[World], None]


def killed(victims: tuple[str, ...], moment: Callable[[World], Any]) -> Happening:
    """kill -9 at a moment; what the moment holds is let go then."""

    def happen(world: World) -> None:
        for victim in victims:  # known before the moment comes
            world.until(lambda world, victim=victim: world.pid(victim))  # type: ignore[misc]
        world.until(moment)
        world.kill(*victims)
        world.release()

    happen.prepare = getattr(moment, "prepare", lambda _: None)  # type: ignore[attr-defined]
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

    def fill(self, left_bytes: int) -> None:
        """No more than this is left."""
        with self.ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
            file.truncate(file.tell() - left_bytes)

    def free(self) -> None:
        """Somebody has made room."""
        self.ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Keep nothing of it."""
        subprocess.run(["umount", "-l", self.folder], capture_output=True)


def disk_full(where: str, told: bool, moment: Callable[[World], Any], left_bytes: int = 0) -> Happening:
    """A disk is full from a moment on; room is made when the documented code has been told, or a round later.

    As docs/deploy.md has it: a coordinator ends with FECG-692, after which `start` goes on, or with FECG-601, after
    which `resume` does. A site fails its task (FECG-601), or cannot record what leaves (FECG-448), and the study ends
    for want of its quorum (FECG-507): `resume`. The last page of a site's record takes one reply more, or two, or none:
    the study may end a round later, and cannot do without room until its end.

    Args:
        where: "coordinator" or "site".
        told: whether it must end; else a round goes by.
        moment: at which the disk is full.
        left_bytes: for small files, so that a coordinator can still write down why it ends: FECG-601 alone then.
    """
    codes = {"FECG-692": "start", "FECG-601": "resume"} if where == "coordinator" else {"FECG-507": "resume"}
    if left_bytes:
        del codes["FECG-692"]

    def prepare(world: World) -> None:
        getattr(moment, "prepare", lambda _: None)(world)
        deployment = world.deployment
        folder = deployment.coordinator.folder if where == "coordinator" else deployment.members[SITE].folder
        happen.disk = SmallDisk(folder)  # type: ignore[attr-defined]

    def happen(world: World) -> None:
        disk: SmallDisk = happen.disk  # type: ignore[attr-defined]
        deployment = world.deployment
        world.until(moment)
        world.book()
        disk.fill(left_bytes)
        world.release()
        if not told:
            wait_until(lambda: at("survival", 2)(world) or deployment.ended, WITHIN_S, deployment.describe)
        ends = told or deployment.ended
        code = _ends_with(world, *codes) if ends else ""
        if ends and where == "site":
            said = deployment.server.log.read_text()
            assert re.search(rf"{SITE}: (FECG-448|FECG-601) ", said), deployment.describe()
        disk.free()
        if ends:
            _start_again(world, codes[code])

    def clean(world: World) -> None:
        if disk := getattr(happen, "disk", None):
            disk.unmount()

    happen.prepare, happen.clean = prepare, clean  # type: ignore[attr-defined]
    return happen


def _ends_with(world: World, *codes: str) -> str:
    """The coordinator ends by itself with one of these codes, and not with another one after it; the code."""
    server, run = world.deployment.server, world.deployment.run
    server.restarts = False
    wait_until(lambda: not server.alive, WITHIN_S, world.deployment.describe)
    server.tend()
    of_the_study = read_object(run / "failed.json").get("code")
    code = of_the_study or ["", *re.findall(r"^FECG-\d{3}", server.log.read_text(), re.MULTILINE)][-1]
    assert code in codes, f"{code}, none of {codes}: {world.deployment.describe()}"
    assert server.statuses[-1] not in (0, 5), server.statuses
    world.notes.append(f"ended with {code}, status {server.statuses[-1]}")
    return str(code)


def _start_again(world: World, command: str = "start") -> None:
    server = world.deployment.server
    server.command[1] = command
    server.statuses.append(1)
    server.restarts = True
    server._due_s = 0.0
    server.start()
    server.statuses.clear()


# --- clocks and databases ------------------------------------------------------------------------------------------


def wrong_clock(minutes: int, whose: str = SITE, moment: Callable[[World], Any] | None = None) -> Happening:
    """A clock is off by ten minutes. A site whose signature that makes too old or too new says so, and comes in by
    itself once the clock is set right.

    Args:
        minutes: ahead, or behind.
        whose: a site's name, "all sites", or "coordinator".
        moment: at which it goes wrong; None: before anything starts.
    """

    def clock(world: World) -> Path:
        return world.deployment.folder / "clock"

    def prepare(world: World) -> None:
        deployment = world.deployment
        services = {"coordinator": deployment.server} if whose == "coordinator" else deployment.sites
        for name, service in services.items():
            if whose in (name, "all sites"):
                service.environment = with_module(WRONG_CLOCK) | {"WRONG_CLOCK": str(clock(world))}
        if moment is None:
            clock(world).write_text(str(minutes))

    def happen(world: World) -> None:
        if moment is not None:
            world.until(moment)
            world.book()
            clock(world).write_text(str(minutes))
        for site in [SITE] if whose == SITE else world.deployment.sites:
            world.until(lambda world, site=site: _refused_for_its_clock(world, site))  # type: ignore[misc]
        clock(world).unlink()
        world.notes.append("FECG-648 told")

    happen.prepare = prepare  # type: ignore[attr-defined]
    return happen


def _refused_for_its_clock(world: World, site: str) -> bool:
    status = world.deployment.site_state(site, "status.json")
    return status.get("code") == "FECG-648" and "a signature whose time is off" in status["waiting-for"]


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
            part.rename(part.with_name(f"lost-{part.name}"))
        _start_again(world)

    return happen
