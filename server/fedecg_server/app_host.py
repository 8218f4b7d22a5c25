"""The app host: a long-lived process that runs submitted studies with the INSTALLED ServerApp, one after the other.

    python -m fedecg_server.app_host DIR [--report FD]

In:  the coordinator's folder; studies as the SuperLink hands them out. Out: the files of the run folder; the end of
each run, told to the SuperLink and, as a line of JSON, to the supervisor. Started by the supervisor.

A submitted bundle is a name: its hash must be that of the installed package, and it is never unpacked. Run settings
are this process's own, so that nothing of them travels to the sites. A study that ends with a code has ended
(`run/failed.json`); one that ends in any other way is submitted again by the supervisor and goes on from its state.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

import httpx

from fedecg.errors import FedecgError
from fedecg.federation.bundle import bundle_sha256
from fedecg.memory import return_freed_memory
from fedecg_server.coordinator import Coordinator, open_coordinator
from fedecg_server.host_process import ALIVE
from fedecg_server.superlink import check_flower_version

if TYPE_CHECKING:
    from flwr.serverapp import ServerApp

    from fedecg_server.runtime import Task

__all__ = ["main"]

LOOK_EVERY_S, AWAY_EVERY_S = 0.25, 0.5
ALIVE_EVERY_S = 5.0
FAILED = "failed.json"


class StopRequestedError(BaseException):
    """SIGTERM came: no handler of ordinary exceptions may take it for one."""


class Host:
    """Takes studies and runs them.

    Args:
        coordinator: whose studies.
        report: file descriptor of the supervisor's pipe; None: nobody listens.
    """

    def __init__(self, coordinator: Coordinator, report: int | None) -> None:
        self.coordinator, self.report = coordinator, report

    def serve(self) -> None:
        """Run whatever is submitted, until SIGTERM."""
        check_flower_version()
        from fedecg_server.app import app  # torch, once, before a study waits for it
        from fedecg_server.runtime import Desk

        settings, tls = self.coordinator.settings, self.coordinator.tls
        self.coordinator.run.mkdir(parents=True, exist_ok=True)
        desk = Desk(settings.control_address, tls.ca, self.coordinator.secret, room=self.coordinator.run)
        self.tell("ready")
        while True:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                task = desk.take()
                if task is None:
                    time.sleep(LOOK_EVERY_S)
                    continue
                self.run(app, task)
            except httpx.HTTPError as error:  # the supervisor has it back in a moment
                print(f"no SuperLink: {type(error).__name__}", flush=True)
                time.sleep(AWAY_EVERY_S)
            except (
                KeyboardInterrupt
            ):  # Flower's own: it interrupts the process whose run was stopped, some of it late
                continue

    def run(self, app: ServerApp, task: Task) -> None:
        """Run one study and tell how it ended."""
        self.tell("taken", task.run)
        end, details = "crashed", "the app host stopped"
        try:
            end, details = self._outcome(app, task)
        except StopRequestedError:
            end, details = "stopped", "the coordinator stopped"
            raise
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a late interruption must not hide how it ended
            if end != "lost":
                task.finish(end == "completed", details)
            task.close()
            self.tell(end, task.run, details)

    def _outcome(self, app: ServerApp, task: Task) -> tuple[str, str]:
        """How the study ended, and the code or the kind of error."""
        if task.bundle_sha256 != bundle_sha256():
            return "refused", "FECG-688"
        try:
            task.context.run_config = {
                "study": str(self.coordinator.study_file),
                "run-folder": str(self.coordinator.run),
                "sites": str(self.coordinator.sites_file),
            }
            app(task.grid, task.context)
        except FedecgError as error:
            print(error, flush=True)
            self._keep(error)
            return "failed", error.code
        except KeyboardInterrupt:
            return "lost", "stopped at the SuperLink, or not heard of for too long"
        except Exception as error:
            _say_where(error)
            lost = isinstance(error, httpx.HTTPError) or type(error).__name__ == "RunNotRunningException"
            return ("lost" if lost else "crashed"), type(error).__name__
        return "completed", ""

    def _keep(self, error: FedecgError) -> None:
        """Say why the study ended, where it has not said so itself."""
        from fedecg_server.run_folder import RunFolder

        if not (self.coordinator.run / FAILED).exists():
            with suppress(
                FedecgError
            ):  # a full disk: the supervisor names the code and submits the study again
                RunFolder(self.coordinator.run).fail(error)

    def tell(self, event: str, run: int = 0, details: str = "") -> None:
        """One line to the log and to the supervisor."""
        print(f"{event} {run or ''} {details}".strip(), flush=True)
        if self.report is not None:
            os.write(self.report, _line(event, run, details))

    def say_alive(self) -> None:
        """Tell the supervisor every few seconds, from a thread that ends with the process."""
        if self.report is not None:
            threading.Thread(target=self._say_alive, args=(self.report,), daemon=True).start()

    def _say_alive(self, report: int) -> None:
        while True:
            # A supervisor that stands still fills the pipe: room is left for what the study has to tell.
            if select.select([], [report], [], 0.0)[1]:
                with suppress(OSError):
                    os.write(report, _line(ALIVE))  # one write: never in the middle of another line
            time.sleep(ALIVE_EVERY_S)


def _say_where(error: Exception) -> None:
    """Kind and places of a fault to the log; never its text, which may hold what sites have sent."""
    traceback.print_tb(error.__traceback__)
    print(
        f"{type(error).__name__} (its text is left out: it may hold sums of sites)",
        file=sys.stderr,
        flush=True,
    )


def _line(event: str, run: int = 0, details: str = "") -> bytes:
    return (json.dumps({"event": event, "run": str(run), "details": details}) + "\n").encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser("fedecg_server.app_host", description=__doc__)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--report", type=int, metavar="FD")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    return_freed_memory()  # a coordinator trains nothing: what a model took is given back, not kept for the next
    try:
        host = Host(open_coordinator(options.folder), options.report)
        host.say_alive()
        host.serve()
    except StopRequestedError:
        return 0
    except FedecgError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    return 1


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the end is being told
    raise StopRequestedError


if __name__ == "__main__":
    sys.exit(main())
