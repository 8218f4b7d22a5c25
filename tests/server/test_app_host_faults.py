"""What the app host writes of a fault that nobody foresaw: kind and places, and nothing that sites have sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from coordinator_process import make_coordinator
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedecg.federation.bundle import bundle_sha256
from fedecg.federation.tasks import TrainReply
from fedecg_client.app import app as client_app
from fedecg_server.app_host import Host
from fedecg_server.runtime import Task
from fedecg_simulations.grid import InProcessGrid

SUM = 8117.25  # of a site, in a field that takes none


def test_the_log_names_the_kind_and_the_places_of_a_fault_and_no_value(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del grid, context
        TrainReply.model_validate({"site": "city", "patients": f"{SUM}"})

    task = Task(
        run=7,
        bundle_sha256=bundle_sha256(),
        context=Context(7, 1, {}, RecordDict(), {}),
        grid=InProcessGrid(client_app, {}),  # type: ignore[arg-type]
        heartbeat=None,  # type: ignore[arg-type]
    )
    assert Host(make_coordinator(tmp_path / "coordinator"), None)._outcome(app, task) == (
        "crashed",
        "ValidationError",
    )
    said = "".join(capfd.readouterr())
    assert "ValidationError" in said
    assert f"{Path(__file__).name}" in said
    assert str(SUM) not in said
