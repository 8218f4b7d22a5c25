"""The dashboard: what it says of a run as the study writes it."""

from __future__ import annotations

import json
import re
import time

import pytest
from page_reading import ask, seen, words
from watched_run import LOCK, SITES, WatchedRun

from fedecg.errors import FederationError
from fedecg_server.coordinator import Coordinator
from fedecg_server.dashboard import LOOK_EVERY_S, dashboard_server
from fedecg_server.loopback_http import LoopbackServer, serving
from fedecg_server.waits import Waits


def curve(html: str, kind: str) -> list[tuple[float, float]]:
    """The points of a line in the first chart that has it; the same line stands in its legend after it."""
    path = re.findall(f'<g class="{kind}"><path d="([^"]+)"/>', html)[0]
    return [(float(x), float(y)) for x, y in (point.split() for point in re.split(r"[ML]", path)[1:])]


def test_before_the_study_it_says_that_none_has_begun(server: LoopbackServer) -> None:
    told = seen(server)
    assert "No study has begun in this folder." in told
    assert "Nothing has happened yet." in told
    assert "could be read" not in told


def test_a_running_study_is_told_in_words(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("align", 10, of=10)
    run.play("survival", 4, of=10, late=["valley"], rejected={"coast": "FECG-545"})
    run.journal.enter("survival", 10, 5)
    run.wait(["valley"], 34.0, 600.0)
    told = seen(server)
    assert "Running. Stage 2: the network learns time to heart failure." in told
    assert "14 of 20 rounds done, about 30 s of rounds left" in told  # six rounds of 5 s, the median
    assert "Now: survival, round 5 of 10." in told
    assert "Waiting for valley : 34 s of at most 10 min" in told
    assert "city answered 4 3.4" in told
    assert (
        "coast last reply left out FECG-545: an update far longer than the others' and the site's own 3 3.5"
        in told
    )
    assert "survival 4 1 of 3 not: coast FECG-545, valley late" in told
    assert "16.8 MB sent and received in all" in told
    for fingerprint in (LOCK, "00c0ffee"):
        assert fingerprint in told


def test_c_index_losses_and_the_best_round_are_drawn_and_written(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 5, of=10)
    points = [run.c_index(number) for number in range(1, 6)]
    parts = json.loads(ask(server, "/parts.json")[1])["parts"]
    assert f"Best so far: 4, {points[-1]['stratified']:.3f}." in words(parts["c-index"])
    bounds = f"guaranteed to lie in {points[-1]['lower']:.3f}–{points[-1]['upper']:.3f}"
    assert bounds in words(parts["c-index"])
    assert len(curve(parts["c-index"], "stratified")) == 5
    assert 'class="ring" cx="348.0"' in parts["c-index"]  # the last of the five is the best
    for at in range(len(SITES)):
        assert len(curve(parts["losses"], f"site-{at}")) == 5
    table = parts["loss-table"]
    assert re.findall(r'<abbr title="([^"]+)"', table) == list(SITES)
    assert table.count("<tr>") == 6


def test_where_every_site_withholds_its_validation_patients_that_is_said_and_no_number_of_events(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    withheld = {**dict.fromkeys(run.c_index(1)), "few-events": True}
    run.play("survival", 1, of=10, validation=withheld)
    told = words(json.loads(ask(server, "/parts.json")[1])["parts"]["c-index"])
    assert "No C-index: no site has told a figure of its validation patients (below its thresholds)." in told
    assert "Few events" not in told


def test_the_curve_is_higher_where_the_c_index_is_higher(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 6, of=10)
    html = json.loads(ask(server, "/parts.json")[1])["parts"]["c-index"]
    heights = [y for _, y in curve(html, "stratified")]
    assert heights == sorted(heights, reverse=True)  # SVG counts from the top
    grid = dict(re.findall(r'<path d="M46 ([\d.]+)H348"/><text [^>]*>([\d.]+)</text>', html))
    at = {float(text): float(y) for y, text in grid.items()}
    (low, y_low), (high, y_high) = sorted(at.items())[0], sorted(at.items())[-1]
    value = low + (y_low - heights[-1]) / (y_low - y_high) * (high - low)
    assert value == pytest.approx(run.c_index(6)["stratified"], abs=0.002)


def test_below_the_quorum_it_says_whom_it_waits_for(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.journal.enter("survival", 10, 1)
    run.wait(["coast", "valley"], 95.0, 86400.0, below_quorum=True)
    told = seen(server)
    assert "Waiting: too few sites for a round, or sites that take longer than usual." in told
    assert "Waiting for coast, valley : 95 s of at most 24 h" in told


def test_a_wait_of_the_supervisor_comes_before_that_of_the_study(
    server: LoopbackServer, run: WatchedRun, coordinator: Coordinator
) -> None:
    Waits(coordinator).say("the SuperLink to answer", 60.0)
    named = r"Waiting for the SuperLink to answer : [\w.]+ m?s of at most 60 s"
    assert re.search(named, seen(server))
    run.begin()
    run.play("survival", 3, of=10)
    told = seen(server)
    assert "Waiting for the coordinator itself. Stage 2: the network learns time to heart failure." in told
    assert re.search(named, told)
    status = json.loads(ask(server, "/status.json")[1])
    assert (status["state"], status["waiting-for"]) == ("waiting", ["the SuperLink to answer"])
    Waits(coordinator).over()
    time.sleep(LOOK_EVERY_S + 0.1)
    assert "SuperLink" not in seen(server)
    assert json.loads(ask(server, "/status.json")[1])["state"] == "running"


def test_a_finished_study_names_its_best_round_and_its_fingerprints(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 10, of=10)
    run.finish(best=3)
    told = seen(server)
    assert "Completed." in told
    assert f"Best round: 3, {run.c_index(4)['stratified']:.3f}." in told
    assert "ab" * 32 in told
    assert "cd" * 32 in told
    assert "of rounds left" not in told
    assert "As the study saw them last." in told


def test_an_error_is_told_with_its_message(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.fail(FederationError("FECG-507", "survival round 3", found="1 usable replies", expected="at least 2"))
    told = seen(server)
    assert "FECG-507 survival round 3: found 1 usable replies; expected at least 2." in told
    assert "The study ended with an error (FECG-507: fewer usable replies than the quorum)" in told


def test_a_study_whose_process_has_gone_is_stopped(coordinator: Coordinator, run: WatchedRun) -> None:
    """It waits for nobody, and nobody works; a node that is no site is not shown."""
    run.begin()
    run.journal.mark("node 7228584742653926615", "refused", "FECG-508")
    run.wait(["coast"], 95.0, 300.0, below_quorum=True)
    with serving(dashboard_server(coordinator, 0)) as server:
        told = seen(server)
        status = json.loads(ask(server, "/status.json")[1])
    assert "Stopped. `fedecg-server start` goes on with it." in told
    assert "node 7228" not in told
    assert "working" not in told
    assert (status["state"], status["running"], status["waiting-for"]) == ("stopped", False, [])
    assert {site["state"] for site in status["sites"]} == {"offline"}


def test_events_are_the_last_two_hundred(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    for number in range(300):
        run.journal.event("late", site="city", kind=f"train {number}")
    events = json.loads(ask(server, "/events.json")[1])
    assert [event["kind"] for event in events] == [f"train {number}" for number in range(100, 300)]


def test_the_json_is_what_the_study_wrote(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    written = json.loads((run.folder.path / "status.json").read_text())
    told = json.loads(ask(server, "/status.json")[1])
    times = {"started", "updated"}
    assert {key: told[key] for key in written if key not in times} == {
        key: written[key] for key in written if key not in times
    }
    for key in times:
        assert told[key].replace("Z", "+00:00") == written[key]
    rounds = json.loads((run.folder.path / "rounds.json").read_text())
    answered = json.loads(ask(server, "/rounds.json")[1])
    assert [{"hazard-ratio": None, "alignment": {}, "spends": {}} | entry for entry in answered] == rounds


def test_a_run_that_is_begun_anew_is_read_anew(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    assert "3 of 20 rounds done" in seen(server)
    run.folder.path.rename(run.folder.path.with_name("run-earlier"))
    again = WatchedRun(run.folder.path, run.settings)
    again.begin()
    told = seen(server)
    assert "0 of 20 rounds done" in told
    assert len(json.loads(ask(server, "/events.json")[1])) == 5  # start, phase, three joins


def test_stages_that_are_trained_again_are_told_apart(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 10, of=10)
    run.play("survival, seed 2", 2, of=10)
    told = seen(server)
    assert "It is trained again (survival, seed 2), to test its attention." in told
    assert "10 of 20 rounds done" in told


def test_more_sites_than_colours_are_all_drawn(coordinator: Coordinator, server: LoopbackServer) -> None:
    names = tuple(f"hospital-{number:02d}" for number in range(30))
    run = WatchedRun(coordinator.run, coordinator.study(), names)
    run.begin()
    run.play("align", 3, of=10)
    html = json.loads(ask(server, "/parts.json")[1])["parts"]["losses"]
    assert len(re.findall(r'<g class="site-\d"><path d="M\d+ [^"]*"/>\n', html)) == 8
    assert len(re.findall(r'<g class="other"><path d="M\d+ [^"]*"/>\n', html)) == 22
    assert "22 other sites" in html
