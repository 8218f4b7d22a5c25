"""A whole deployment for tests: hospitals' folders, a coordinator, agents, and a keeper that restarts what dies.

In:  settings of a small study. Out: real processes (SuperLink over TLS, keys, the commands that people type), and the
same study run in one process, whose bits the deployment must reach. Used by the tests of the whole and by chaos.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w

sys.path.append(str(Path(__file__).resolve().parents[1] / "server"))

from coordinator_process import (  # the path stands above
    Site,
    free_port,
    is_alive,
    make_coordinator,
    parent_of,
    words_of,
)

from fedecg.config import StudySettings, parse_settings
from fedecg.progress import Progress
from fedecg_server.coordinator import open_coordinator
from fedecg_simulations.hospitals import write_hospitals

RESTART_S = 1.0  # what the unit files say is 5; tests wait less
CLEAN_OR_FOR_A_PERSON = {0, 2, 3, 4, 5}  # exit statuses after which the unit files do not restart
TIMES = {"seconds", "bytes"}  # of a round's record: bytes count messages that were sent again, too
IN_PROCESS = """
import sys
from pathlib import Path
from fedecg.config import load_study
from fedecg_simulations.engine import run_federation
sites, study, run = map(Path, sys.argv[1:])
run_federation(load_study(study), sites, study, run, "in one process")
"""


def tiny_study(name: str = "tiny", **federation: Any) -> StudySettings:
    """Two synthetic hospitals and a small network; a round takes about a second."""
    tree = {
        "name": name,
        "seed": 5,
        "data": {"source": "synthetic", "sites": {"city": 60, "coast": 50}, "test-patients": 30},
        "signals": {"samples": 256},
        "model": {"size": "small"},
        "align": {"rounds": 2, "local-steps": 3, "batch-size": 16},
        "survival": {"rounds": 2, "local-steps": 6, "batch-size": 16},
        "federation": {"quorum": 2, "deadline-s": 200.0, "patience-s": 300.0, "threads": 1}
        | {key.replace("_", "-"): value for key, value in federation.items()},
        "evaluation": {"explain": False},
    }
    return parse_settings(StudySettings, tree)


@dataclass(frozen=True)
class Hospitals:
    """Folders of hospitals with a study that they can take part in."""

    folder: Path
    settings: StudySettings

    @property
    def names(self) -> list[str]:
        """Of the hospitals."""
        return sorted(path.parent.name for path in self.folder.glob("*/site.toml"))


def make_hospitals(settings: StudySettings, folder: Path) -> Hospitals:
    """What `fedecg-simulate hospitals` writes, with a site.toml each."""
    write_hospitals(settings, folder, Progress(""))
    for hospital in folder.iterdir():
        (store,) = (hospital / "store").iterdir()
        document = {"name": hospital.name, "store": f"store/{store.name}", "cohort": "cohort.csv"}
        policy = {"policy": {"studies": ["*"], "keep-replies": False}}  # of the run in one process
        privacy = {
            "privacy": {"threshold-patients": 0, "threshold-events": 0}
        }  # their patients are generated
        (hospital / "site.toml").write_text(tomli_w.dumps(document | policy | privacy))
    return Hospitals(folder, settings)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to, without times."""

    status: str
    weights: str  # sha256
    rounds: list[dict[str, Any]]
    evaluation: dict[str, Any]
    assessment: dict[str, Any]
    baselines: dict[str, Any]  # empty where the study asks for none
    explanation: dict[str, Any]

    @staticmethod
    def of(run: Path) -> Outcome:
        """From a run's folder."""
        result = json.loads((run / "result.json").read_text())
        return Outcome(
            result["status"],
            hashlib.sha256((run / "model" / "weights.safetensors").read_bytes()).hexdigest(),
            without_times(json.loads((run / "rounds.json").read_text())),
            result["evaluation"] | {"best-round": result["best-round"], "sites": result["sites"]},
            json.loads((run / "assessment.json").read_text()),
            read_object(run / "baselines.json"),
            read_object(run / "explanation.json"),
        )


def without_times(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of rounds without what may differ from one run to the next."""
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in rounds]


def run_in_one_process(hospitals: Hospitals, folder: Path) -> Outcome:
    """The simulation's engine over the same folders, in a process of its own: threads are as the study says."""
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / "study.toml"
    study.write_text(tomli_w.dumps(hospitals.settings.model_dump(by_alias=True, exclude_none=True)))
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_PROCESS, str(hospitals.folder), str(study), str(folder / "run")],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return Outcome.of(folder / "run")


class Service:
    """A command that is started again a moment after it was killed or failed, as the unit files do.

    Args:
        command: as a person types it.
        log: where it writes.
        environment: more than this process's.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.command, self.log, self.environment = command, log, environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.statuses: list[int] = []  # exit statuses so far; negative: killed
        self.before: list[str] = []  # a command in front of it, such as strace
        self.restarts = True
        self._due_s = 0.0

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, sys.executable, "-P", "-m", *self.command],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    def tend(self) -> None:
        """Start it again if it has died and its time has come."""
        if self.process is None or self.process.poll() is None:
            return
        if self._due_s == 0.0:
            self.statuses.append(self.process.returncode)
            self._due_s = time.monotonic() + RESTART_S
        if (
            self.restarts
            and self.statuses[-1] not in CLEAN_OR_FOR_A_PERSON
            and time.monotonic() >= self._due_s
        ):
            self._due_s = 0.0
            self.start()

    def kill(self) -> None:
        """kill -9 of the process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM; its exit status. It is not started again."""
        self.restarts = False
        if self.process is None:
            return 0
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            return -signal.SIGKILL


class Deployment:
    """A coordinator and its sites, as processes; in a `with` statement, after which nothing of it may be left.

    Args:
        hospitals: copied, so that each deployment has its own.
        folder: for everything.
    """

    def __init__(self, hospitals: Hospitals, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.settings = folder, hospitals.settings
        self.coordinator = make_coordinator(folder / "coordinator")
        quiet = "dashboard-port = 0\nmetrics-port = 0\n"
        lines = [
            line
            for line in self.coordinator.server_file.read_text().splitlines()
            if not line.startswith(("dashboard-port", "metrics-port"))
        ]
        self.coordinator.server_file.write_text("\n".join([*lines, quiet]))
        self.coordinator = open_coordinator(self.coordinator.folder)
        study = hospitals.settings.model_dump(by_alias=True, exclude_none=True)
        self.coordinator.study_file.write_text(tomli_w.dumps(study))
        shutil.copytree(hospitals.folder, folder / "sites")
        members = [Site(self.coordinator, folder / "sites" / name) for name in hospitals.names]
        self.members = {site.name: site for site in members}
        self.server = Service(
            ["fedecg_server.cli", "start", str(self.coordinator.folder)], folder / "server.log"
        )
        self.sites = {
            name: Service(["fedecg_client.cli", "start", str(site.folder)], folder / f"{name}.log")
            for name, site in self.members.items()
        }
        self.run = self.coordinator.run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def services(self) -> list[Service]:
        """All that a person starts."""
        return [self.server, *self.sites.values()]

    def connect_by(self, site: str, address: str) -> None:
        """Have a site connect there."""
        file = self.members[site].folder / "site.toml"
        own = f"127.0.0.1:{self.coordinator.settings.port}"
        file.write_text(file.read_text().replace(own, address))

    def start(self) -> None:
        """Start everything."""
        for service in self.services:
            service.start()

    def tend(self) -> None:
        """Restart what has died."""
        for service in self.services:
            service.tend()

    def stop(self) -> None:
        """Ask everything to stop, sites first."""
        for service in self.sites.values():
            if service.alive:
                service.restarts = False
                os.kill(service.pid, signal.SIGTERM)
        for service in [*self.sites.values(), self.server]:
            service.stop()

    def run_to_the_end(self, within_s: float) -> int:
        """Keep everything running until the study has ended; the coordinator's exit status."""
        end = time.monotonic() + within_s
        while not self.ended:
            assert time.monotonic() < end, f"not within {within_s} s: {self.describe()}"
            self.tend()
            time.sleep(0.1)
        return self.server.statuses[-1]

    @property
    def ended(self) -> bool:
        """Whether the coordinator has ended in a way after which nobody restarts it."""
        server = self.server
        server.tend()
        return not server.alive and bool(server.statuses) and server.statuses[-1] in CLEAN_OR_FOR_A_PERSON

    def status(self) -> dict[str, Any]:
        """run/status.json."""
        return read_object(self.run / "status.json")

    def site_state(self, name: str, file: str) -> dict[str, Any]:
        """A JSON file of a site's state, or nothing."""
        return read_object(self.members[name].folder / "state" / file)

    def rounds(self) -> list[dict[str, Any]]:
        """run/rounds.json."""
        try:
            return list(json.loads((self.run / "rounds.json").read_text()))
        except (OSError, ValueError):
            return []

    def children(self) -> dict[str, int]:
        """superlink, host -> pid, of the coordinator that runs now."""
        found = {}
        for pid, parent in _parents():
            if parent == self.server.pid:
                words = words_of(pid)
                for name, sign in (("superlink", "flower-superlink"), ("host", "app_host")):
                    if sign in words:
                        found[name] = pid
        return found

    def worker(self, site: str) -> int:
        """Process id of a site's worker, 0 if there is none."""
        for pid, parent in _parents():
            if parent == self.sites[site].pid and "fedecg_client.worker" in words_of(pid):
                return pid
        return 0

    def processes(self) -> list[int]:
        """Everything that has this folder in its command line or its environment, and lives."""
        sign = os.fsencode(self.folder)
        return [pid for pid, _ in _parents() if pid != os.getpid() and _bears(pid, sign) and is_alive(pid)]

    def describe(self) -> str:
        """For a test that has failed: how things stand."""
        status = {key: self.status().get(key) for key in ("state", "phase", "round", "waiting-for", "sites")}
        tails = [f"--- {log.name}\n{tail(log)}" for log in sorted(self.folder.glob("*.log"))]
        return "\n".join([json.dumps(status), *tails, tail(self.coordinator.app_log)])


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is none (yet)."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def tail(log: Path, characters: int = 1500) -> str:
    """The end of a log."""
    try:
        return log.read_text(errors="replace")[-characters:]
    except OSError:
        return ""


def _parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name), parent_of(int(entry.name))


def _bears(pid: int, sign: bytes) -> bool:
    for file in ("cmdline", "environ"):
        with suppress(OSError):
            if sign in Path(f"/proc/{pid}/{file}").read_bytes():
                return True
    return False


def wait_until(condition: Callable[[], Any], within_s: float, what: Callable[[], str]) -> Any:
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within_s} s: {what()}"
        time.sleep(0.02)
    return found


@contextmanager
def nothing_left(deployment: Deployment) -> Iterator[None]:
    """After the block nothing of the deployment may run."""
    with deployment:
        yield
        deployment.stop()
        left = [words_of(pid) for pid in deployment.processes()]
        assert not left, f"orphans: {left}"


__all__ = [
    "Deployment", "Hospitals", "Outcome", "Service", "free_port", "make_hospitals", "nothing_left", "read_object",
    "run_in_one_process", "tiny_study", "wait_until", "without_times",
]  # fmt: skip
