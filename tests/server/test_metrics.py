"""What Prometheus is told, read back with its own parser."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinator_process import make_coordinator
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families
from watched_run import WatchedRun

from fedecg.config import StudySettings
from fedecg.errors import FederationError, RunError
from fedecg_server.coordinator import Coordinator
from fedecg_server.loopback_http import LoopbackServer, serving
from fedecg_server.metrics import metrics_server
from fedecg_server.sites import add_site

HOSTILE = 'x"} 1\nfedecg_round 99\n'
Figures = dict[str, float]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    """Two sites stand in its list."""
    folder = tmp_path_factory.mktemp("made")
    coordinator = make_coordinator(folder / "coordinator")
    for name in ("city", "coast"):
        public = ec.generate_private_key(ec.SECP384R1()).public_key()
        key = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(key)
        add_site(coordinator, name, folder / f"{name}.pub")
    return coordinator


@pytest.fixture
def coordinator(template: Coordinator, tmp_path: Path) -> Coordinator:
    shutil.copytree(template.folder, tmp_path / "coordinator")
    return Coordinator(tmp_path / "coordinator", template.settings)


@pytest.fixture
def run(coordinator: Coordinator) -> WatchedRun:
    return WatchedRun(coordinator.run, StudySettings(name="watched", seed=1))


@pytest.fixture
def server(coordinator: Coordinator) -> Iterator[LoopbackServer]:
    with serving(metrics_server(coordinator, 0)) as server:
        yield server


def ask(
    server: LoopbackServer, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    finally:
        connection.close()


def figures(server: LoopbackServer) -> Figures:
    """name{label value} -> figure."""
    status, text, _ = ask(server)
    assert status == 200
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one_of(told: Figures, name: str) -> str:
    """The label of the only sample that is 1."""
    (present,) = [key for key, value in told.items() if key.startswith(name + "{") and value == 1.0]
    return present.removeprefix(name)[1:-1]


def test_before_the_study_there_are_states_and_no_figures_of_rounds(server: LoopbackServer) -> None:
    told = figures(server)
    assert one_of(told, "fedecg_study_state") == "starting"
    assert told["fedecg_sites{not-seen}"] == 2
    assert "fedecg_round" not in told
    assert told["fedecg_exchanged_bytes_total"] == 0


def test_a_running_study_in_figures(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("align", 10, of=10)
    run.play("survival", 4, of=10, late=["valley"], rejected={"coast": "FECG-545"})
    run.journal.enter("survival", 10, 5)
    run.wait(["city"], 12.5, 600.0)
    told = figures(server)
    assert one_of(told, "fedecg_study_state") == "running"
    assert one_of(told, "fedecg_study_phase") == "survival"
    assert (told["fedecg_round"], told["fedecg_rounds"]) == (5, 10)
    assert (
        told["fedecg_waiting_sites"],
        told["fedecg_waited_seconds"],
        told["fedecg_wait_limit_seconds"],
    ) == (1, 12.5, 600)
    assert told["fedecg_last_round_seconds"] == 5.0
    assert told["fedecg_exchanged_bytes_total"] == 14 * 1_200_000
    assert told["fedecg_rounds_done_total"] == 14
    expected = run.c_index(4)
    for kind in ("stratified", "global", "lower", "upper"):
        assert told[f"fedecg_validation_c_index{{{kind}}}"] == expected[kind]
    states = {"working": 1, "rejected": 1, "late": 1, "not-seen": 0, "other": 0}
    assert {state: told[f"fedecg_sites{{{state}}}"] for state in states} == states


def test_updates_that_were_left_out_are_counted_by_code(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 1, of=10, rejected={"coast": "FECG-545"})
    run.play("survival", 1, of=10, first=2, rejected={"coast": "FECG-545", "city": "FECG-505"})
    run.play("survival", 1, of=10, first=3, rejected={"city": HOSTILE})
    told = figures(server)
    rejected = {key: value for key, value in told.items() if key.startswith("fedecg_updates_rejected_total")}
    assert rejected == {
        "fedecg_updates_rejected_total{FECG-545}": 2,
        "fedecg_updates_rejected_total{FECG-505}": 1,
        "fedecg_updates_rejected_total{other}": 1,
    }
    assert told["fedecg_events_total{round}"] == 3
    assert told["fedecg_events_total{join}"] == 3
    run.play("survival", 1, of=10, first=4, rejected={"coast": "FECG-545"})
    assert figures(server)["fedecg_updates_rejected_total{FECG-545}"] == 3


def test_only_sites_of_the_list_become_labels(coordinator: Coordinator, server: LoopbackServer) -> None:
    run = WatchedRun(coordinator.run, StudySettings(name="watched", seed=1), ("city", HOSTILE))
    run.begin()
    run.play("survival", 1, of=10)
    told = figures(server)
    labels = [key for key in told if key.startswith("fedecg_site_")]
    assert sorted(labels) == ["fedecg_site_last_answer_seconds{city}", "fedecg_site_last_round{city}"]
    assert told["fedecg_sites{answered}"] == 2
    assert told["fedecg_round"] == 1


def test_states_and_phases_that_nobody_knows_are_other(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.journal.mark("city", HOSTILE)
    run.journal.event(HOSTILE)
    run.journal.enter(HOSTILE)
    run.journal.state = HOSTILE
    run.journal.write()
    told = figures(server)
    assert one_of(told, "fedecg_study_state") == "other"
    assert one_of(told, "fedecg_study_phase") == "other"
    assert told["fedecg_sites{other}"] == 1
    assert told["fedecg_events_total{other}"] == 1
    run.journal.enter("survival, seed 2", 10, 1)
    assert one_of(figures(server), "fedecg_study_phase") == "survival"


def test_the_age_of_the_status_grows(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    path = run.folder.path / "status.json"
    document = json.loads(path.read_text()) | {"updated": "2026-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(document))
    since = 1767225600.0  # date -d 2026-01-01T00:00:00Z +%s
    assert figures(server)["fedecg_status_age_seconds"] == pytest.approx(
        max(0.0, time.time() - since), abs=3.0
    )


def test_how_the_study_ended_is_a_state(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.fail(FederationError("FECG-507", "round", found="1", expected="2"))
    assert one_of(figures(server), "fedecg_study_state") == "failed"
    run.finish(best=1, status="completed-partial")
    assert one_of(figures(server), "fedecg_study_state") == "completed-partial"


def test_damaged_files_cost_their_figures_and_are_counted(
    coordinator: Coordinator, server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 2, of=10)
    (run.folder.path / "status.json").write_text("{")
    coordinator.sites_file.write_text("{")
    told = figures(server)
    assert told["fedecg_unreadable_files"] == 1
    assert "fedecg_round" not in told
    assert told["fedecg_rounds_done_total"] == 2


def test_prometheus_is_given_its_own_format(server: LoopbackServer) -> None:
    status, text, kind = ask(server)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "# TYPE fedecg_study_state gauge" in text
    assert "# TYPE fedecg_updates_rejected_total counter" in text


def test_figures_are_for_this_machine_and_to_be_read(server: LoopbackServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, method="POST")[0] == 405
    assert ask(server, Host="evil.example")[0] == 421
    assert ask(server, "/sites.json")[0] == 404
    assert ask(server, method="HEAD")[:2] == (200, "")


def test_a_port_that_is_taken_is_named(coordinator: Coordinator, server: LoopbackServer) -> None:
    with pytest.raises(
        RunError, match=f"FECG-691 metrics-port {server.port} on 127.0.0.1: found a port that cannot be"
    ):
        metrics_server(coordinator, server.port)
