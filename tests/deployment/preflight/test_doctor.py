"""Doctor: what does not match, and what the last refusals meant."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import AgentProcess, Authority, Processes, SuperLink, until
from site_checks import Captured, MakeFolder, agreed, by_name, codes, line_of

from fedecg.codes import CODES
from fedecg.federation.identity import certificate_fingerprint, read_public_key
from fedecg_client.cli import main
from fedecg_client.pinned import pin, propose
from fedecg_client.preflight.check import Check


def test_doctor_compares_the_fingerprints_that_were_read_over_the_phone(
    make_folder: MakeFolder,
    superlink: SuperLink,
    member: tuple[int, Path],
    capsys: Captured,
    authority: Authority,
) -> None:
    folder = make_folder(superlink.address, key=member[1])
    right, key = (
        certificate_fingerprint(authority.certificate),
        read_public_key(folder / "node.pub").fingerprint,
    )
    for spoken in (right, right.replace(" ", ":").lower(), f"SHA256 Fingerprint={right}"):
        line = ["doctor", str(folder), "--ca-fingerprint", spoken, "--key-fingerprint", key]
        assert main(line) == 0
    wrong = right.replace(right[0], "0" if right[0] != "0" else "1")
    capsys.readouterr()
    assert main(["doctor", str(folder), "--ca-fingerprint", wrong, "--key-fingerprint", key[:-1] + "x"]) == 3
    told = capsys.readouterr().out
    assert f"FECG-658 {right}, not what was told" in told
    assert "FECG-657 SHA256:" in told


def test_doctor_explains_what_the_agent_was_told(make_folder: MakeFolder, capsys: Captured) -> None:
    folder = make_folder("127.0.0.1:1")
    events = [
        {"time": "T1", "event": "wait", "code": "FECG-648"},
        {"time": "T2", "event": "wait", "code": "FECG-648"},
        {"time": "T3", "event": "task-refused", "code": "FECG-418"},
        {"time": "T4", "event": "online", "code": None},
        {"time": "T5", "event": "wait", "code": "FECG-\x1b[2J"},
        {"time": "T6", "event": "wait", "code": ["FECG-649"]},
        {"time": "T7", "event": "wait", "code": "FECG-999"},
    ]
    (folder / "state/events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events) + '{"time"'
    )
    capsys.readouterr()
    main(["doctor", str(folder), "--json"])
    said = json.loads(capsys.readouterr().out)["refusals"]
    assert [(entry["code"], entry["times"], entry["last"]) for entry in said] == [
        ("FECG-999", 1, "T7"), ("FECG-418", 1, "T3"), ("FECG-648", 2, "T2"),
    ]  # fmt: skip
    assert said[1]["meaning"] == CODES["FECG-418"]
    assert "policy.hours" in said[1]["fix"]
    assert main(["doctor", str(folder)]) == 1
    assert "FECG-648 the coordinator does not let this node in" in capsys.readouterr().out


def test_doctor_is_silent_about_what_was_mended_before_a_task_was_done(make_folder: MakeFolder) -> None:
    from fedecg_client.doctor import refusals
    from fedecg_client.folder import open_site

    site = open_site(make_folder("127.0.0.1:1"))

    def codes(*more: dict[str, str]) -> list[str]:
        events = [{"time": "T", **event} for event in (*history, *more)]
        (site.state / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return [entry["code"] for entry in refusals(site)]

    done, refused = {"event": "reply"}, {"event": "task-refused", "code": "FECG-554"}
    history = [{"event": "wait", "code": "FECG-648"}, {"event": "online"}]
    assert codes(refused, done) == ["FECG-554", "FECG-648"]  # the refusal travels as a reply
    assert codes(refused, done, refused, done, done) == []
    assert codes(refused, done, done, {"event": "wait", "code": "FECG-649"}) == ["FECG-649"]
    left_out = {"event": "left-out", "code": "FECG-505"}
    (site.state / "left-out.json").write_text("{}")
    assert codes(refused, left_out, done, done) == ["FECG-505"]
    (site.state / "left-out.json").unlink()  # a reply has been taken
    assert codes(refused, left_out, done, done) == []


def test_doctor_says_what_does_not_fit_in_the_agreed_studies(make_folder: MakeFolder) -> None:
    from fedecg_client.doctor import diagnose
    from fedecg_client.folder import open_site

    folder = make_folder("127.0.0.1:1")

    def locks() -> Check:
        return by_name(diagnose(open_site(folder)))["locks"]

    assert locks().found == "no study has been joined yet"
    pin(folder, agreed())
    assert locks().details["locks"] == {"hf": agreed().sha256()}
    propose(folder, agreed(seed=3))
    assert (locks().code, agreed(seed=3).sha256() in locks().found) == ("FECG-413", True)
    pin(folder, agreed().model_copy(update={"code_fingerprint": "0" * 64}))
    assert locks().code == "FECG-541"
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(f'{text}hf = "{"1" * 64}"\n')
    assert locks().code == "FECG-412"
    (folder / "state/locks/hf.json").write_text("{")
    assert locks().code == "FECG-413"


@pytest.mark.slow
def test_start_status_and_stop_run_a_site_from_the_shell(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    folder = make_folder(superlink.address)
    node = superlink.register(folder / "node.pub")
    processes = Processes(tmp_path)
    command = [sys.executable, "-m", "fedecg_client.cli"]

    def status() -> dict[str, Any]:
        done = subprocess.run([*command, "status", "--json"], cwd=folder, capture_output=True, text=True)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    try:
        agent = processes.start([*command, "start"], log=tmp_path / "agent.log", cwd=folder)
        until(lambda: status().get("state") == "idle", 40, "a site that waits")
        document = status()
        assert (document["pid"], document["connected"], document["code"]) == (agent.pid, True, None)
        assert superlink.status_of(node) == "online"
        again = subprocess.run([*command, "start"], cwd=folder, capture_output=True, text=True)
        assert (again.returncode, again.stderr[:8]) == (1, "FECG-641")
        assert subprocess.run([*command, "stop"], cwd=folder, capture_output=True).stdout == b"stopped\n"
        assert agent.wait(10) == 0
        assert status()["state"] == "stopped"
        agent = processes.start([*command, "start"], log=tmp_path / "agent.log", cwd=folder)
        until(lambda: status().get("pid") == agent.pid and status()["state"] == "idle", 40, "the site again")
        agent.kill()
        agent.wait()
        assert status()["state"] == "killed"
        until(lambda: not processes.left(), 10, "the worker ends with its agent")
    finally:
        processes.end()


@pytest.mark.slow
def test_doctor_knows_a_key_that_is_used_elsewhere(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    from fedecg_client.doctor import diagnose
    from fedecg_client.folder import open_site

    folder = make_folder(superlink.address)
    superlink.register(folder / "node.pub")
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    processes = Processes(tmp_path)
    try:
        first = AgentProcess(folder, processes).start()
        first.online()
        second = AgentProcess(twin, processes).start()
        until(lambda: second.status.get("code") == "FECG-648", 20, "the twin is not let in")
        check = by_name(diagnose(open_site(twin)))["agent"]
        assert check.code == "FECG-648"
        assert "Another machine runs an agent with this key" in check.fix
        assert [agent.stop() for agent in (first, second)] == [0, 0]
    finally:
        processes.end()


def test_tls_checks_trust_the_sites_authority_alone(
    make_folder: MakeFolder, serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An authority that the whole machine trusts is not believed."""
    other = Authority.new("trusted by the machine")
    (tmp_path / "machine.crt").write_bytes(other.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "machine.crt"))
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] >= 1
    checks = line_of(make_folder(f"127.0.0.1:{serve(other.sign('127.0.0.1'))}"))
    assert codes(checks) == {"tls-chain": "FECG-644"}
