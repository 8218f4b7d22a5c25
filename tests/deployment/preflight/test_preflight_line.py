"""Preflight of the way to the coordinator: each fault is made for real and met by name."""

from __future__ import annotations

import datetime
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from loopback import AgentProcess, Authority, Processes, SuperLink, free_port
from site_checks import Captured, MakeFolder, by_name, codes, line_of

from fedecg.federation.identity import public_key_of, read_public_key
from fedecg_client import probe as probe_module
from fedecg_client.cli import main
from fedecg_client.keys import load_key
from fedecg_client.preflight import LINE, run_preflight
from fedecg_client.preflight import line as line_module


def test_where_all_is_well_every_check_holds_and_nothing_changes_at_the_coordinator(
    make_folder: MakeFolder, superlink: SuperLink, member: tuple[int, Path], capsys: Captured
) -> None:
    node, key = member
    folder = make_folder(superlink.address, key=key)
    capsys.readouterr()
    assert main(["preflight", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    assert [check["ok"] for check in document["checks"]] == [True] * 24
    assert {"name", "ok", "code", "fix"} <= set(document["checks"][0])
    assert superlink.status_of(node) == "registered"  # never online: no message could have been lost
    kept = json.loads((folder / "state/preflight.json").read_text())
    assert kept == document
    parts = {check["name"]: check for check in kept["checks"]}["cohort"]["details"]["parts"]
    assert {part: (counts["patients"], counts["events"]) for part, counts in parts.items()} == {
        "train": (60, 20), "validation": (24, 8), "test": (30, 10),
    }  # fmt: skip
    assert parts["train"]["follow-up-days"]["0.5"] == float(np.median(300.0 + 31.0 * np.arange(60)))


@pytest.mark.slow
def test_an_agent_that_runs_is_not_disturbed(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    folder = make_folder(superlink.address)
    node = superlink.register(folder / "node.pub")
    processes = Processes(tmp_path)
    try:
        agent = AgentProcess(folder, processes).start()
        assert agent.online() == node
        checks = by_name(run_preflight(folder))
        assert checks["key-registered"].ok
        assert f"process {agent.process and agent.process.pid}" in checks["key-registered"].found
        assert main(["doctor", str(folder)]) == 0
        assert superlink.status_of(node) == "online"
        assert main(["stop", str(folder)]) == 0
        assert agent.wait() == 0
        assert [event["event"] for event in agent.events].count("online") == 1
    finally:
        processes.end()


def test_a_key_that_is_not_on_the_list_is_told_and_renewed_only_once_it_is(
    make_folder: MakeFolder, superlink: SuperLink, capsys: Captured
) -> None:
    folder = make_folder(superlink.address)
    capsys.readouterr()
    assert main(["preflight", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "FECG-648 a key that is not on the coordinator's list" in told
    assert "fedecg-server site add NAME --key node.pub" in told
    assert "23 hold, 1 to mend, 0 not tried" in told
    assert main(["renew-key", str(folder)]) == 0
    old = (folder / "node.key").read_bytes()
    assert main(["renew-key", str(folder), "--use"]) == 1
    assert "FECG-648 new key" in capsys.readouterr().err
    assert (folder / "node.key").read_bytes() == old
    superlink.register(folder / "node.new.pub")
    new = read_public_key(folder / "node.new.pub")
    assert main(["renew-key", str(folder), "--use"]) == 0
    assert public_key_of(load_key(folder / "node.key")).text == new.text
    assert read_public_key(folder / "node.pub").text == new.text
    assert sorted(file.name for file in folder.glob("node*")) == ["node.key", "node.pub"]
    assert line_of(folder)["key-registered"].ok


@pytest.mark.parametrize(
    ("ahead_s", "found"),
    [
        (-400, "a clock 5 to 10 min behind"),
        (200, "a clock 0 to 5 min ahead of"),
        (1400, "a clock 20 to 25 min ahead of"),
        (90_000, "a clock more than 60 min from"),
        (4, None),
        (-60, None),
    ],
)
def test_this_machines_clock_is_compared_with_the_coordinators(
    make_folder: MakeFolder,
    superlink: SuperLink,
    member: tuple[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: int,
    found: str | None,
) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=ahead_s)

    folder = make_folder(superlink.address, key=member[1])
    monkeypatch.setattr(probe_module, "datetime", Clock)
    checks = line_of(folder)
    assert checks["clock"].ok is (found is None)
    assert found is None or checks["clock"].found.startswith(found)
    assert checks["clock"].code == (None if found is None else "FECG-652")
    assert checks["key-registered"].ok is (True if found is None else None)
    assert ("being refused as ahead" in checks["clock"].found) == (ahead_s == 4)


def test_the_control_port_is_told_from_the_fleet_port(make_folder: MakeFolder, superlink: SuperLink) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{superlink.control_port}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == "a web server: the coordinator's control port?"


def test_a_closed_port_is_told_and_the_rest_is_skipped(make_folder: MakeFolder) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{free_port()}"))
    assert codes(checks) == {"tcp": "FECG-649"}
    assert "nobody who listens at the coordinator" in checks["tcp"].found
    assert [name for name in LINE if checks[name].ok is None] == list(LINE[3:])


def test_a_certificate_of_another_authority_is_told_with_who_signed_it(
    make_folder: MakeFolder, serve: Callable[..., int]
) -> None:
    other = Authority.new("a firewall that opens TLS")
    checks = line_of(make_folder(f"127.0.0.1:{serve(other.sign('127.0.0.1'))}"))
    assert codes(checks) == {"tls-chain": "FECG-644"}
    assert "a firewall that opens TLS" in checks["tls-chain"].details["issuer"]
    assert checks["certificate"].ok  # its dates are right all the same
    assert checks["fleet-port"].ok is None


def test_a_certificate_of_another_name_is_told_with_its_names(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(authority.sign('ecg.example.org', '192.0.2.1'))}"))
    assert codes(checks) == {"tls-name": "FECG-645"}
    assert checks["tls-name"].found == "one made out to ecg.example.org, 192.0.2.1, not to 127.0.0.1"


@pytest.mark.parametrize(("days", "found"), [((-9, -1), "has expired"), ((1, 9), "is not valid yet")])
def test_a_certificate_that_is_not_in_force_is_told_from_a_wrong_one(
    make_folder: MakeFolder,
    serve: Callable[..., int],
    authority: Authority,
    days: tuple[int, int],
    found: str,
) -> None:
    certificate = authority.sign("127.0.0.1", from_day=days[0], to_day=days[1])
    checks = line_of(make_folder(f"127.0.0.1:{serve(certificate)}"))
    assert codes(checks) == {"certificate": "FECG-646"}
    assert checks["certificate"].found == f"a certificate that {found}"
    assert checks["tls-chain"].ok
    assert checks["tls-name"].ok


def test_several_faults_are_told_at_once(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    certificate = authority.sign("ecg.example.org", from_day=-9, to_day=-1)
    checks = line_of(make_folder(f"127.0.0.1:{serve(certificate)}"))
    assert codes(checks) == {"tls-name": "FECG-645", "certificate": "FECG-646"}


def test_a_plain_text_server_is_told(make_folder: MakeFolder, serve: Callable[..., int]) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(None)}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == "a server that speaks plain text"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a server that speaks plain text"),
        (b"", "no TLS (UNEXPECTED_EOF_WHILE_READING)"),
        (None, "a server that ends the greeting (no answer in time)"),
    ],
)
def test_what_is_no_tls_is_told(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, found: str
) -> None:
    monkeypatch.setattr(line_module, "TCP_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, answer), daemon=True)
        thread.start()
        checks = line_of(make_folder(f"127.0.0.1:{listener.getsockname()[1]}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == found
    thread.join(5)


def _answer(listener: socket.socket, answer: bytes | None) -> None:
    """Twice: for the check of TCP, and for that of TLS."""
    for _ in range(2):
        line, _ = listener.accept()
        with line, suppress(OSError):
            line.settimeout(3)
            while line.recv(4096) and answer is None:  # silent until the other side gives up
                pass
            line.sendall(answer or b"")


def test_a_grpc_server_of_another_kind_is_told(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(authority.sign('127.0.0.1'))}"))
    assert codes(checks) == {"fleet-port": "FECG-647"}
    assert "does not know the fleet's calls" in checks["fleet-port"].found


def test_a_superlink_that_lets_anybody_in_is_told(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    port = serve(authority.sign("127.0.0.1"), lambda *_: b"")
    checks = line_of(make_folder(f"127.0.0.1:{port}"))
    assert codes(checks) == {"fleet-port": "FECG-647"}
    assert checks["fleet-port"].found == "a SuperLink that asks no site for a key"


def test_a_name_that_cannot_be_looked_up_is_told(make_folder: MakeFolder) -> None:
    checks = line_of(make_folder("no-such-host.invalid:9092"))
    assert codes(checks) == {"dns": "FECG-653"}
    assert checks["tcp"].ok is None


def test_a_look_up_without_end_is_given_up(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(line_module, "DNS_S", 0.1)
    monkeypatch.setattr(line_module.socket, "getaddrinfo", lambda *_, **__: [held.wait(5)][1:])
    checks = line_of(make_folder("ecg.example.org:9092"))
    held.set()
    assert "no answer within 0 s" in checks["dns"].found
