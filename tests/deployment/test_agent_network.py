"""The agent's line to its coordinator: restarts there, wrong keys and certificates, and nobody else on the line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import (
    BIN,
    AgentProcess,
    Authority,
    Driver,
    Processes,
    SuperLink,
    free_port,
    until,
    write_key,
    write_site,
)

from fedecg.federation.bundle import bundle_files

pytestmark = pytest.mark.slow

MakeSite = Callable[..., AgentProcess]


@pytest.fixture
def own_superlink(tmp_path: Path, authority: Authority) -> Iterator[SuperLink]:
    """A SuperLink that the test may kill."""
    processes = Processes(tmp_path)
    link = SuperLink(tmp_path / "superlink", processes, authority, ("127.0.0.1",))
    try:
        link.start()
        yield link
    finally:
        processes.end()
    until(lambda: not processes.left(), 5, f"left running: {processes.left()}")


def site_of(link: SuperLink, name: str = "north") -> AgentProcess:
    folder = write_site(link.processes.folder / name, link.address, link.authority.pem)
    link.register(folder / "node.pub")
    return AgentProcess(folder, link.processes)


@pytest.mark.parametrize("away_s", [2.0, 40.0])
def test_a_superlink_killed_and_restarted_is_found_again_within_15_s(
    own_superlink: SuperLink, away_s: float
) -> None:
    agent = site_of(own_superlink).start()
    node = agent.online()
    own_superlink.kill()
    until(lambda: agent.status["code"] == "FECG-649", 10, "notices")
    assert not agent.status["connected"]
    time.sleep(away_s)
    own_superlink.start()
    began = time.monotonic()
    assert agent.online(15) == node
    print(f"away {away_s} s: back {time.monotonic() - began:.1f} s after the SuperLink")
    assert [event["event"] for event in agent.events].count("start") == 1
    (reply,) = Driver(own_superlink, bundle_files()).ask(node)
    assert reply["error"] is None
    assert agent.stop() == 0


def test_a_fresh_database_is_waited_out_until_the_key_is_added_again(own_superlink: SuperLink) -> None:
    agent = site_of(own_superlink).start()
    before = agent.online()
    own_superlink.kill()
    for part in own_superlink.folder.glob("database*"):
        part.unlink()
    own_superlink.start()
    until(lambda: agent.status["code"] == "FECG-648", 20, f"{agent.status}")
    now = own_superlink.register(agent.folder / "node.pub")
    until(lambda: agent.status["connected"], 40, "online")
    assert now != before
    assert agent.node_id == now


def test_a_key_that_is_not_registered_is_told_and_comes_in_as_soon_as_it_is_added(
    make_site: MakeSite, superlink: SuperLink
) -> None:
    agent = make_site(register=False).start()
    until(lambda: agent.status.get("code") == "FECG-648", 20, "told")
    assert "a key that is not registered" in agent.status["waiting-for"]
    assert agent.status["at-most-s"] > 0
    node = superlink.register(agent.folder / "node.pub")
    assert agent.online(40) == node


def test_what_it_waits_for_and_each_change_is_a_line_for_whoever_started_it(
    make_site: MakeSite, superlink: SuperLink, driver: Driver
) -> None:
    agent = make_site(address=f"127.0.0.1:{free_port()}").start()
    until(lambda: "FECG-649" in agent.log.read_text(), 20, "nobody at the port")
    assert agent.stop() == 0
    assert re.fullmatch(
        r"north: waits, and tries again every 10 s or sooner: FECG-649 coordinator: found .*\nnorth: stopped\n",
        agent.log.read_text(),
    )
    agent = make_site("south", register=False).start()
    until(lambda: "FECG-648" in agent.log.read_text(), 30, "an unregistered key")
    assert "fedecg-server site add" in agent.log.read_text()
    node = superlink.register(agent.folder / "node.pub")
    agent.online(40)
    driver.ask(node)
    assert agent.stop() == 0
    said = [
        line.split(": ", 1)[1] for line in agent.log.read_text().splitlines() if "joins a study" not in line
    ]
    assert [line for line in said if line in ("connected", "stopped")] == ["connected", "stopped"]
    assert len([line for line in said if line.startswith("waits")]) == 1
    assert any("takes part in study" in line for line in said)


def refused(agent: AgentProcess, code: str) -> str:
    """It ends with status 1 and the code; what it says."""
    assert agent.start().wait(40) == 1
    assert (agent.status["state"], agent.status["code"], agent.status["connected"]) == (
        "refused",
        code,
        False,
    )
    text = agent.log.read_text()
    assert code in text
    assert "Traceback" not in text
    return text


def test_a_wrong_ca_ends_the_agent_with_a_code(make_site: MakeSite) -> None:
    agent = make_site()
    (agent.folder / "ca.crt").write_bytes(Authority.new("another CA").pem)
    assert "Compare the fingerprint of ca.crt" in refused(agent, "FECG-644")


def test_an_expired_certificate_and_another_name_end_the_agent_with_a_code(own_superlink: SuperLink) -> None:
    agent = site_of(own_superlink)
    settings = agent.folder / "site.toml"
    settings.write_text(settings.read_text().replace("127.0.0.1:", "localhost:"))
    assert "found one made out to another name" in refused(agent, "FECG-645")
    own_superlink.kill()
    own_superlink.certify("localhost", from_day=-9, to_day=-2)
    own_superlink.start()
    assert "found one that has expired" in refused(agent, "FECG-646")


def test_a_certificate_that_expires_later_is_waited_out_by_an_agent_that_has_worked(
    own_superlink: SuperLink,
) -> None:
    agent = site_of(own_superlink).start()
    agent.online()
    own_superlink.kill()
    own_superlink.certify("127.0.0.1", from_day=-9, to_day=-2)
    own_superlink.start()
    until(lambda: agent.status["code"] == "FECG-646", 20, "told")
    own_superlink.kill()
    own_superlink.certify("127.0.0.1")
    own_superlink.start()
    agent.online(40)
    assert (agent.status["connected"], agent.status["code"]) == (True, None)


def test_a_superlink_without_tls_ends_the_agent_with_a_code(make_site: MakeSite, tmp_path: Path) -> None:
    processes, port = Processes(tmp_path), free_port()
    (tmp_path / "flwr-home").mkdir()
    command = [
        "flower-superlink",
        "--insecure",
        "--fleet-api-address",
        f"127.0.0.1:{port}",
        "--port",
        str(free_port()),
    ]
    agent = make_site(address=f"127.0.0.1:{port}")
    try:
        processes.start([*command, "--isolation", "process"], tmp_path / "plain.log")
        until(lambda: "Fleet API" in (tmp_path / "plain.log").read_text(), 30, "plain SuperLink")
        time.sleep(1)
        assert "plain text is refused" in refused(agent, "FECG-647")
    finally:
        processes.end()


def test_the_control_port_is_no_fleet_port(make_site: MakeSite, superlink: SuperLink) -> None:
    agent = make_site(address=f"127.0.0.1:{superlink.control_port}")
    assert "FECG-647" in refused(agent, "FECG-647")


def test_a_site_without_a_server_or_a_key_ends_with_a_code(make_site: MakeSite) -> None:
    agent = make_site(register=False)
    (agent.folder / "node.key").unlink()
    assert "FECG-643 node.key: found no such file" in refused(agent, "FECG-643")
    settings = agent.folder / "site.toml"
    settings.write_text('name = "north"\nstore = "store"\ncohort = "cohort.csv"\n')
    assert "FECG-643 site.toml: found no [server]" in refused(agent, "FECG-643")


def test_nothing_is_looked_up_and_nobody_else_is_called(
    make_site: MakeSite, driver: Driver, superlink: SuperLink, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace))
    agent = make_site().start(strace)
    node = until(lambda: agent.status.get("connected") and agent.node_id, 90, "up")
    for _ in range(3):
        (reply,) = driver.ask(node)
        assert reply["error"] is None
    os.kill(agent.status["pid"], signal.SIGTERM)  # not strace itself
    assert agent.wait(30) == 0
    text = trace.read_text()
    called = re.findall(
        r"connect\(\d+, \{sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"", text
    )
    assert called  # the trace works
    assert {port for port, _ in called} == {str(superlink.port)}
    assert {host.removeprefix("::ffff:") for _, host in called} == {"127.0.0.1"}
    assert "nscd" not in text
    assert "htons(53)" not in text


def test_a_stock_supernode_joins_beside_the_agent_and_answers_with_the_installed_app(
    make_site: MakeSite, superlink: SuperLink, driver: Driver, tmp_path: Path
) -> None:
    ours = make_site("north").start()
    theirs = write_site(tmp_path / "south", superlink.address, superlink.authority.pem)
    node = superlink.register(theirs / "node.pub")
    processes = Processes(tmp_path)
    command = [
        str(BIN / "flower-supernode"), "--superlink", superlink.address, "--root-certificates", str(theirs / "ca.crt"),
        "--auth-supernode-private-key", str(theirs / "node.key"), "--node-config", f'site-folder="{theirs}"',
        "--host", "127.0.0.1", "--port", str(free_port()),
    ]  # fmt: skip
    try:
        processes.start(command, tmp_path / "supernode.log")
        until(lambda: superlink.status_of(node) == "online", 30, "supernode")
        replies = driver.ask(node, ours.online(), within_s=60)
        by_node = {reply["node"]: reply for reply in replies}
        assert {reply["error"] for reply in replies} == {None}
        assert '"site":"south"' in by_node[node]["text"].replace(" ", "")
    finally:
        processes.end()
    until(lambda: not processes.left(), 5, f"left running: {processes.left()}")


def test_another_flower_than_1_39_is_refused_before_its_inside_is_touched(
    make_site: MakeSite, tmp_path: Path
) -> None:
    fake = tmp_path / "other" / "flwr-1.40.0.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.40.0\n")
    agent = make_site(register=False)
    run = "import sys, pathlib; from fedecg.exits import exit_status; from fedecg_client.agent import run_agent; "
    code = f"import sys; sys.path.insert(0, {str(fake.parent)!r}); " + run
    code += f"sys.exit(exit_status(lambda: run_agent(pathlib.Path({str(agent.folder)!r}))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "FECG-642 installed programs: found flwr 1.40.0; expected flwr 1.39 on both sides" in done.stderr


def test_a_key_that_was_made_anew_is_another_node(make_site: MakeSite, superlink: SuperLink) -> None:
    agent = make_site()
    before = agent.start().online()
    agent.stop()
    write_key(agent.folder)
    now = superlink.register(agent.folder / "node.pub")
    assert agent.start().online() == now != before
