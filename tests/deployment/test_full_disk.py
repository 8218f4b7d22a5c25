"""A coordinator whose disk is full says so by the code of the disk, although it cannot write that down."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_study import tiny_study  # noqa: F401  (puts tests/server on the path)

from coordinator_process import make_coordinator  # isort: skip

from fedecg.errors import FedecgError, RunError
from fedecg.progress import Progress
from fedecg_server.app_host import Host
from fedecg_server.host_process import HostEvent
from fedecg_server.run_folder import RunFolder
from fedecg_server.supervisor import FAILURES, StopRequest, Supervisor


def full() -> FedecgError:
    return RunError("FECG-601", "file rounds.json", found="no space left", expected="space", fix="Make room.")


def test_an_end_that_cannot_be_written_down_does_not_end_the_app_host(tmp_path: Path) -> None:
    coordinator = make_coordinator(tmp_path / "coordinator")
    coordinator.run.rmdir()
    coordinator.run.write_text("")  # a file where the folder should be: nothing can be written into it
    folder = RunFolder(coordinator.run)
    with pytest.raises(RunError, match="FECG-601 file failed.json"):
        folder.fail(full())
    Host(coordinator, None)._keep(full())
    coordinator.run.unlink()
    coordinator.run.mkdir()
    Host(coordinator, None)._keep(full())
    assert "FECG-601" in (coordinator.run / "failed.json").read_text()


def test_the_coordinator_ends_with_the_code_that_could_not_be_written_down(tmp_path: Path) -> None:
    supervisor = Supervisor(make_coordinator(tmp_path / "coordinator"), Progress(), StopRequest())
    event = HostEvent("failed", "7", "FECG-601")
    for _ in range(FAILURES - 1):
        supervisor.run_id = "7"
        supervisor._hear(event)
    supervisor.run_id = "7"
    with pytest.raises(RunError, match="FECG-687.*the last: the study ended with FECG-601.*app.log"):
        supervisor._hear(event)
