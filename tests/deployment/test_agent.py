"""The site's agent against a real SuperLink over TLS on loopback: messages, kills, cuts, stops."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import PYPROJECT, AgentProcess, Driver, Proxy, SuperLink, until

pytestmark = pytest.mark.slow

MakeSite = Callable[..., AgentProcess]
SLOW_DISK = Path(__file__).with_name("slow_disk")
NODE_UNAVAILABLE, RAISED, INVALID_FAB, CRASHED = 5, 2, 7, 8


class Held:
    """A table that a slow disk gives when the test lets it: a task that lasts as long as wanted."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent, self.gate = agent, agent.folder / "held"
        self.gate.touch()

    def start(self) -> AgentProcess:
        """Start the site's agent; it and its workers wait for the table."""
        paths = [str(SLOW_DISK), *filter(None, [os.environ.get("PYTHONPATH")])]
        return self.agent.start(PYTHONPATH=os.pathsep.join(paths))

    def reached(self, pid: int) -> bool:
        """This process is inside its task, and waits."""
        return (self.agent.folder / f"reached-{pid}").exists()

    def release(self) -> None:
        """Give the table to whoever waits, and to everybody from now on."""
        self.gate.unlink()


@pytest.fixture
def proxy(superlink: SuperLink) -> Iterator[Proxy]:
    """A line to the SuperLink."""
    line = Proxy(superlink.port)
    yield line
    line.close()


class Busy:
    """A site at work; its table is given by `held.release()`."""

    def __init__(self, agent: AgentProcess, driver: Driver) -> None:
        self.agent, self.held = agent, Held(agent)
        self.node = self.held.start().online()
        driver.say(self.node, within_s=60)
        self.worker = working(self.held)


@pytest.fixture
def busy(make_site: MakeSite, driver: Driver) -> Busy:
    """An agent whose worker has a message in hand, and is held there."""
    return Busy(make_site(), driver)


def working(held: Held, but: int = 0) -> int:
    """Wait until a worker, and not that one, is inside the app with the message in hand; its pid."""
    agent = held.agent
    until(
        lambda: agent.status["state"] == "working" and other_worker(agent, but),
        15,
        f"working: {agent.status}",
    )
    pid = int(agent.status["worker-pid"])
    until(lambda: held.reached(pid), 15, f"inside the app: {agent.status}")
    return pid


def other_worker(agent: AgentProcess, first: int) -> int:
    """A worker that is ready, and not the first."""
    now = agent.status["worker-pid"]
    return 0 if now in (None, first) else int(now)


def names(agent: AgentProcess) -> list[str]:
    return [event["event"] for event in agent.events]


def test_a_message_is_answered_by_the_installed_app(make_site: MakeSite, driver: Driver) -> None:
    agent = make_site().start()
    node = agent.online()
    (reply,) = driver.ask(node)
    assert reply["error"] is None
    assert json.loads(reply["text"])["parts"]["train"] == {"patients": 2, "events": 1, "withheld": False}
    until(lambda: agent.status["tasks-done"] == 1, 5, "status")
    assert (agent.status["state"], agent.status["code"]) == ("idle", None)
    assert agent.status["received-bytes"] > 500
    assert agent.status["sent-bytes"] > 200


def test_a_message_that_the_app_does_not_know_is_answered_with_a_code_alone(
    make_site: MakeSite, driver: Driver
) -> None:
    agent = make_site().start()
    (reply,) = driver.ask(agent.online(), kind="query.nonsense")
    assert (reply["error"], reply["reason"]) == (RAISED, "FECG-599")


def test_a_worker_killed_in_mid_task_is_replaced_and_given_the_message_again(
    busy: Busy, driver: Driver
) -> None:
    agent, first = busy.agent, busy.worker
    os.kill(first, signal.SIGKILL)
    working(busy.held, but=first)
    busy.held.release()
    (reply,) = driver.read()
    assert reply["error"] is None
    assert json.loads(reply["text"])["site"] == "north"
    assert names(agent).count("worker-died") == 1
    assert names(agent).count("online") == 1


def test_a_message_that_kills_two_workers_is_answered_with_an_error_and_the_node_stays(
    busy: Busy, driver: Driver
) -> None:
    agent, first = busy.agent, busy.worker
    os.kill(first, signal.SIGKILL)
    os.kill(working(busy.held, but=first), signal.SIGKILL)
    (reply,) = driver.read()
    assert (reply["error"], reply["reason"]) == (CRASHED, "FECG-599")
    busy.held.release()
    (reply,) = driver.ask(busy.node)
    assert reply["error"] is None
    assert names(agent).count("online") == 1


def test_a_task_that_takes_too_long_is_ended(make_site: MakeSite, driver: Driver) -> None:
    agent = make_site(policy="task-limit-s = 2.0")
    held = Held(agent)
    node = held.start().online()
    (reply,) = driver.ask(node)
    assert (reply["error"], reply["reason"]) == (CRASHED, "FECG-604")
    assert 1.9 < reply["seconds"] < 8
    held.release()
    (reply,) = driver.ask(node)
    assert reply["error"] is None


def test_an_idle_agent_that_was_killed_is_back_within_15_s_as_the_same_node(
    make_site: MakeSite, driver: Driver
) -> None:
    agent = make_site()
    node = agent.start().online()
    agent.kill()
    began = time.monotonic()
    assert agent.start().online() == node
    assert time.monotonic() - began < 15
    (reply,) = driver.ask(node)
    assert reply["error"] is None


def test_an_agent_killed_in_mid_task_goes_on_with_the_message_when_it_is_back(
    busy: Busy, driver: Driver
) -> None:
    agent = busy.agent
    agent.kill()
    until(lambda: not Path(f"/proc/{busy.worker}").exists(), 3, "the worker dies with its agent")
    assert busy.held.start().online() == busy.node
    working(busy.held, but=busy.worker)
    busy.held.release()
    (reply,) = driver.read()
    assert reply["error"] is None
    assert "resume" in names(agent)
    assert not (agent.folder / "state" / "in-hand.json").exists() or until(
        lambda: not (agent.folder / "state" / "in-hand.json").exists(), 3, "let go"
    )


def test_a_stop_in_mid_task_tells_the_coordinator_and_leaves_nothing(
    busy: Busy, driver: Driver, superlink: SuperLink
) -> None:
    agent = busy.agent
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 5
    (reply,) = driver.read()
    assert reply["error"] == NODE_UNAVAILABLE  # by the agent's word or, once it is offline, by Flower's
    assert not Path(f"/proc/{busy.worker}").exists()
    assert superlink.status_of(busy.node) == "offline"
    state = agent.folder / "state"
    assert not any((state / name).exists() for name in ("node-id", "agent.pid", "in-hand.json"))
    assert (agent.status["state"], agent.status["connected"]) == ("stopped", False)
    assert agent.processes.left() == []


def test_a_stop_is_as_quick_while_the_worker_stands_still(make_site: MakeSite, driver: Driver) -> None:
    agent = make_site().start()
    node = agent.online()
    worker = int(agent.status["worker-pid"])
    os.kill(worker, signal.SIGSTOP)
    driver.say(node, within_s=60)
    until(lambda: agent.status["state"] == "working", 15, f"working: {agent.status}")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 5
    (reply,) = driver.read()
    assert reply["error"] == NODE_UNAVAILABLE
    assert not Path(f"/proc/{worker}").exists()


def starting_worker(agent: AgentProcess) -> int:
    """The worker that is loading the app; 0 if there is none."""
    assert agent.process
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    return next((int(pid) for pid in children if agent.status.get("worker-pid") is None), 0)


def test_the_wait_for_a_worker_is_named_with_its_bound(make_site: MakeSite, driver: Driver) -> None:
    del driver  # its run gives the fleet port something to serve
    agent = make_site().start()
    worker = until(lambda: starting_worker(agent), 30, "a worker")
    until(lambda: "torch and the app loaded" in str(agent.status["waiting-for"]), 5, str(agent.status))
    assert agent.status["at-most-s"] == 300.0
    os.kill(worker, signal.SIGKILL)
    until(lambda: "started again" in str(agent.status["waiting-for"]), 5, str(agent.status))
    assert agent.status["at-most-s"] == 10.0
    agent.online(within_s=60.0)
    assert (agent.status["waiting-for"], agent.status["at-most-s"]) == (None, None)
    assert names(agent).count("worker-died") == 1


def test_a_stop_while_the_coordinator_is_away_is_as_quick(make_site: MakeSite, proxy: Proxy) -> None:
    agent = make_site(address=proxy.address).start()
    agent.online()
    proxy.deaf = True
    time.sleep(1.5)
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 5
    assert (agent.folder / "state" / "node-id").exists()  # the next agent clears it


def test_a_second_agent_of_a_site_is_refused(make_site: MakeSite) -> None:
    first = make_site().start()
    first.online()
    second = AgentProcess(first.folder, first.processes).start()
    assert second.wait() == 1
    assert "FECG-641 site folder: found an agent that runs already" in second.log.read_text()
    assert first.status["state"] == "idle"


def test_a_copy_of_a_site_at_work_waits_until_that_one_is_gone(busy: Busy, driver: Driver) -> None:
    agent = busy.agent
    elsewhere = agent.folder.with_name("copy")
    shutil.copytree(agent.folder, elsewhere)
    (elsewhere / "held").unlink()
    assert (elsewhere / "state/in-hand.json").exists()
    copy = AgentProcess(elsewhere, agent.processes).start()
    until(lambda: copy.status.get("code") == "FECG-648", 30, f"told: {copy.status}")
    assert "If another machine runs an agent with this key, stop one of them." in copy.log.read_text()
    time.sleep(3.0)  # it tries again
    busy.held.release()
    (reply,) = driver.read()
    assert reply["error"] is None
    assert names(agent).count("online") == 1
    assert names(copy).count("online") == 1  # that of the one which it was copied from
    agent.kill()
    assert copy.online(within_s=100.0) == busy.node
    (reply,) = driver.ask(busy.node)
    assert reply["error"] is None


def test_a_reply_made_while_the_line_was_cut_arrives_when_it_is_back(
    make_site: MakeSite, driver: Driver, proxy: Proxy
) -> None:
    agent = make_site(address=proxy.address)
    held = Held(agent)
    node = held.start().online()
    driver.say(node, within_s=60)
    working(held)
    proxy.cut = True
    proxy.hang_up()
    held.release()
    until(lambda: agent.status["state"] == "connecting", 10, "notices")
    assert agent.status["code"] == "FECG-649"
    assert "expected an answer on its fleet port" in agent.status["waiting-for"]
    assert agent.status["at-most-s"] <= 12
    proxy.cut = False
    (reply,) = driver.read()
    assert reply["error"] is None
    assert json.loads(reply["text"])["site"] == "north"


def test_a_message_lost_on_the_way_becomes_an_error_soon_and_not_a_long_wait(
    make_site: MakeSite, driver: Driver, proxy: Proxy
) -> None:
    agent = make_site(address=proxy.address)
    node = agent.start().online()
    proxy.deaf = True
    driver.say(node, within_s=60)
    time.sleep(2.5)  # the SuperLink hands it out, and nobody hears
    proxy.hang_up()
    proxy.deaf = False
    (reply,) = driver.read()
    assert reply["error"] == NODE_UNAVAILABLE
    assert reply["seconds"] < 15
    until(lambda: agent.status["connected"], 15, "back")
    (reply,) = driver.ask(node)
    assert reply["error"] is None


def test_a_run_of_a_foreign_bundle_is_refused_and_never_unpacked(
    make_site: MakeSite, superlink: SuperLink, tmp_path: Path
) -> None:
    agent = make_site()
    scratch, home, seen = tmp_path / "scratch", tmp_path / "site-home", tmp_path / "seen"
    scratch.mkdir()
    node = agent.start(TMPDIR=str(scratch), FLWR_HOME=str(home)).online()
    evil = f"from pathlib import Path\nfrom flwr.clientapp import ClientApp\nPath({str(seen)!r}).touch()\n"
    bundle = {
        "pyproject.toml": PYPROJECT.format(name="evil", clientapp="evil.client:app"),
        "evil/__init__.py": "",
        "evil/client.py": evil + "app = ClientApp()\n",
    }
    foreign = Driver(superlink, bundle)
    (reply,) = foreign.ask(node)
    foreign.finish()
    assert (reply["error"], reply["reason"]) == (INVALID_FAB, "FECG-642")
    assert "foreign-bundle" in names(agent)
    assert not seen.exists()
    assert not home.exists()
    assert list(scratch.iterdir()) == []


def test_a_message_of_a_run_that_is_over_is_dropped(
    make_site: MakeSite, superlink: SuperLink, driver: Driver
) -> None:
    from fedecg.federation.bundle import bundle_files

    agent = make_site()
    held = Held(agent)
    node = held.start().online()
    short = Driver(superlink, bundle_files())
    short.say(node, within_s=1)
    working(held)
    short.read()
    short.finish()
    held.release()
    until(lambda: "dropped" in names(agent), 15, "dropped")
    (reply,) = driver.ask(node)
    assert reply["error"] is None
