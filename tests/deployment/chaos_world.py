"""A case of chaos while it runs, and the moments at which something may happen to it.

In:  a deployment whose sites come by lines of their own. Out: moments, read from the files that the processes write and
never from a clock; process ids; kills. Called by `chaos_disturbances` and `chaos`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcp_line import Line, Trap
from whole_study import Deployment

WITHIN_S = 300.0  # an undisturbed study: 30 s on two quiet cores
SITE = "city"  # to which things happen
REPLY_BYTES = 400_000  # about 100 thousand parameters of the survival stage
LOOK_S = 0.003
SLOW_DISK = Path(__file__).with_name("slow_disk")


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

    @property
    def gate(self) -> Path:
        """Where it lies, a slow disk keeps the coordinator waiting before it writes its book of rounds."""
        return self.deployment.run / "held"

    def release(self) -> None:
        """Whatever a moment holds goes on; half a reply on its line is cut off."""
        if self.lines[SITE].trap:
            self.lines[SITE].trap.release(cut=True)
        self.gate.unlink(missing_ok=True)


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


def aggregation(world: World) -> bool:
    """All replies to the first survival round are taken and averaged, and nothing of that is on the disk yet."""
    if not world.gate.exists() and (at("survey")(world) or at("survival", 1)(world)):
        world.gate.touch()
    reached = {int(file.name.removeprefix("reached-")) for file in world.deployment.run.glob("reached-*")}
    if not reached:
        return False
    assert reached == {world.deployment.children().get("host")}, "another process waits"
    assert at("survival", 1)(world), "another round"
    assert all(entry["stage"] != "survival" for entry in world.deployment.rounds()), "the round is booked"
    assert not list((world.deployment.run / "state").glob("*.part")), "a checkpoint is being written"
    world.notes.append("replies taken, no checkpoint begun")
    return True


def with_module(folder: Path) -> dict[str, str]:
    """The environment of a process that imports a folder's sitecustomize.py at its start."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _on_a_slow_disk(world: World) -> None:
    world.deployment.server.environment = with_module(SLOW_DISK)


aggregation.prepare = _on_a_slow_disk  # type: ignore[attr-defined]


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


def events_of(world: World) -> list[dict[str, Any]]:
    """state/events.jsonl of the site."""
    file = world.deployment.members[SITE].folder / "state" / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]
