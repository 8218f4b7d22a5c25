"""Who and what is refused, with real processes; and that nothing is pickled and nobody else is called.

Clause of the issue                 held by
unregistered key                    test_agent_network (told, and let in as soon as it is added)
wrong CA, expired, name mismatch    test_agent_network (agents), test_link_faults (each text of gRPC)
server without TLS                  test_agent_network; plain-text clients: here
tampered bundle                     test_agent (never unpacked, FECG-642), test_supervisor (app host, FECG-688)
control port from the fleet port    test_superlink, test_agent_network (an agent that is sent there)
no call elsewhere: agents           test_agent_network (strace); the coordinator: here
forbidden study, phase, lock        tests/client/test_gate, test_gate_in_app (each rule); a whole study: here
removed site, replay, pickle        here; a site's removal from the SuperLink alone: test_sites_list
"""

from __future__ import annotations

import ast
import datetime
import json
import pickletools
import re
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from loopback import Driver, SuperLink, write_key
from whole_study import Deployment, Hospitals, make_hospitals, nothing_left, tiny_study, wait_until

from fedecg.config import ServerSettings
from fedecg_client.faults import LinkError, sorted_fault
from fedecg_client.link import Link, load_credentials
from fedecg_server.sites import remove_site

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    file for folder in ("fedecg", "server", "client", "simulations") for file in (ROOT / folder).rglob("*.py")
]
BEGINS_A_PICKLE = re.compile(rb"\x80[\x02-\x05]")

# --- pickle --------------------------------------------------------------------------------------------------------


def unpickling(call: ast.Call) -> bool:
    """Whether a call may unpickle: torch's files, pandas' own, objects over a pipe, numpy when it is told to."""
    name = ast.unparse(call.func)
    told = any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in call.keywords)
    over_a_pipe = name.endswith(".recv") and not call.args  # a socket's takes a number of bytes
    # `weights_only=True` reads tensors and plain containers and runs nothing: an imported checkpoint needs it.
    of_weights = any(
        word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords
    )
    of_torch = name in {"torch.load", "torch.save"} and not of_weights
    return told or over_a_pipe or of_torch or name.endswith("_pickle")


def test_nothing_is_unpickled_behind_another_name() -> None:
    for file in SOURCES:
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        assert not [ast.unparse(call) for call in calls if unpickling(call)], file.name


@pytest.mark.parametrize(
    "text", ["pipe.recv()", "torch.load(x)", "np.load(x, allow_pickle=True)", "pd.read_pickle(x)"]
)
def test_a_call_that_unpickles_would_be_found(text: str) -> None:
    (call,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert unpickling(call)


def pickles_in(content: bytes) -> int:
    """Whole pickles anywhere in some bytes: a protocol, then sound operations up to a STOP."""
    found = 0
    for match in BEGINS_A_PICKLE.finditer(content):
        try:
            names = [operation.name for operation, _, _ in pickletools.genops(content[match.start() :])]
        except Exception:  # bytes that only begin like one
            continue
        found += len(names) > 3
    return found


def test_a_pickle_in_a_message_would_be_found() -> None:
    import pickle

    assert pickles_in(b"Array 12\0" + pickle.dumps({"weights": [1.0, 2.0]}) + b"rest") == 1
    assert pickles_in(b"Array 12\0" + bytes(range(256)) * 40) == 0


# --- signatures ----------------------------------------------------------------------------------------------------


def credentials_of(folder: Path, superlink: SuperLink) -> ServerSettings:
    folder.mkdir()
    write_key(folder)
    (folder / "ca.crt").write_bytes(superlink.authority.pem)
    return ServerSettings(address=superlink.address, ca=str(folder / "ca.crt"), key=str(folder / "node.key"))


def linked(folder: Path, superlink: SuperLink) -> tuple[Link, int]:
    """A line of a registered node, online; its node id."""
    settings = credentials_of(folder, superlink)
    node = superlink.register(folder / "node.pub")
    link = Link(settings.address, load_credentials(settings), threading.Event())
    assert link.activate() == node
    return link, node


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "details"),
    [("recorded six minutes ago", "Invalid timestamp"), ("altered", "Invalid signature"),
     ("of another node", "Invalid node ID"), ("whole", "")],
)  # fmt: skip
def test_a_signature_that_is_old_altered_or_anothers_is_refused(
    superlink: SuperLink, tmp_path: Path, what: str, details: str
) -> None:
    from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
    from flwr.proto.fleet_pb2_grpc import FleetStub
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
    from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

    (one, node), (other, neighbour) = (
        linked(tmp_path / "one", superlink),
        linked(tmp_path / "other", superlink),
    )
    key = one.credentials.key
    age = datetime.timedelta(minutes=6 if "ago" in what else 0)
    said = (datetime.datetime.now(datetime.UTC) - age).isoformat()
    signature = sign_message(key, said.encode())
    metadata = [
        *RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata(),
        (PUBLIC_KEY_HEADER, public_key_to_bytes(key.public_key())),
        (TIMESTAMP_HEADER, said),
        (SIGNATURE_HEADER, signature[:-1] + b"\0" if what == "altered" else signature),
    ]
    channel = grpc.secure_channel(superlink.address, grpc.ssl_channel_credentials(superlink.authority.pem))
    request = SendNodeHeartbeatRequest(
        node=Node(node_id=neighbour if "another" in what else node), heartbeat_interval=30.0
    )
    try:
        call = FleetStub(channel).SendNodeHeartbeat
        if not details:  # all the rest differs from this by one thing
            assert call(request, metadata=metadata, timeout=10).success
            return
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=metadata, timeout=10)
    finally:
        channel.close()
        one.close()
        other.close()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, details)
    fault = sorted_fault(caught.value)
    assert isinstance(fault, LinkError)
    assert fault.error.code == "FECG-648"


@pytest.mark.slow
def test_a_reply_that_is_replayed_counts_once_and_cannot_be_replaced(
    superlink: SuperLink, driver: Driver, tmp_path: Path
) -> None:
    from fedecg_client.wire import error_reply

    link, node = linked(tmp_path / "one", superlink)
    try:
        driver.say(node)
        received = wait_until(link.pull, 15.0, lambda: "no message")
        link.fetch(received)
        reply, another = (
            error_reply(received, "raised", "FECG-599"),
            error_reply(received, "raised", "FECG-514"),
        )
        for sent in (reply, reply, another, reply):
            link.push(sent)
        (heard,) = driver.read()
        for sent in (reply, another):  # after it has been taken
            link.push(sent)
        driver.say(node, within_s=3.0)
        wait_until(link.pull, 15.0, lambda: "no second message")
        assert driver.read() == []  # an old reply is none to the new question
    finally:
        link.close()
    assert (heard["node"], heard["reason"]) == (node, "FECG-599")


@pytest.mark.slow
@pytest.mark.parametrize("port", ["port", "control_port"])
def test_a_client_without_tls_is_told_nothing(superlink: SuperLink, port: str) -> None:
    address = ("127.0.0.1", getattr(superlink, port))
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(b"GET /v1/control/list-runs HTTP/1.1\r\nHost: coordinator\r\n\r\n")
        line.settimeout(10)
        try:
            heard = line.recv(4096)
        except ConnectionResetError:
            heard = b""
    assert b"HTTP" not in heard
    assert heard == b"" or heard[0] == 0x15  # a TLS alert, and nothing else
    with grpc.insecure_channel(f"127.0.0.1:{getattr(superlink, port)}") as channel:
        call = channel.unary_unary("/flwr.proto.Fleet/ActivateNode")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


# --- a whole study -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    settings = tiny_study("guarded", quorum=1, grace_s=5.0, patience_s=15.0, deadline_s=60.0)
    return make_hospitals(settings, tmp_path_factory.mktemp("guarded") / "hospitals")


def policy(deployment: Deployment, site: str, **changes: Any) -> None:
    """Change what a site allows, as its people do with an editor."""
    import tomllib

    import tomli_w

    file = deployment.members[site].folder / "site.toml"
    document = tomllib.loads(file.read_text())
    document["policy"] |= changes
    file.write_text(tomli_w.dumps(document))


def site_code(deployment: Deployment, site: str) -> str | None:
    """What the coordinator says of a site."""
    return next(
        (entry["code"] for entry in deployment.status().get("sites", []) if entry["name"] == site), None
    )


def events(deployment: Deployment) -> list[dict[str, Any]]:
    file = deployment.run / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_site_that_is_removed_in_mid_study_is_out_at_once_and_the_others_go_on(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    deployment = Deployment(hospitals, tmp_path / "removed")
    with nothing_left(deployment):
        deployment.start()

        def survives() -> bool:
            deployment.tend()
            return deployment.status().get("phase") == "survival"

        wait_until(survives, 200.0, deployment.describe)
        assert remove_site(deployment.coordinator, "coast").live
        status = deployment.run_to_the_end(300.0)
        wait_until(
            lambda: deployment.site_state("coast", "status.json").get("code") in ("FECG-648", "FECG-649"),
            60.0, deployment.describe,
        )  # fmt: skip
        told = (deployment.members["coast"].folder / "state" / "events.jsonl").read_text()
        result = json.loads((deployment.run / "result.json").read_text())
    assert status == 5
    assert result["status"] == "completed-partial"
    assert '"FECG-648"' in told
    last = [
        entry for entry in json.loads((deployment.run / "rounds.json").read_text()) if entry["round"] == 2
    ][-2]
    assert last["answered"] == ["city"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_coordinator_that_changes_the_lock_or_asks_for_what_is_not_allowed_gets_codes_and_nothing_else(
    tmp_path: Path,
) -> None:
    settings = tiny_study("hostile", quorum=2, grace_s=5.0, patience_s=20.0, deadline_s=60.0)
    deployment = Deployment(make_hospitals(settings, tmp_path / "hospitals"), tmp_path / "hostile")
    study = deployment.coordinator.study_file
    agreed = study.read_text()

    def run_again() -> str:
        """Another run; what the coordinator ends with."""
        deployment.server.command = [*deployment.server.command[:3], "--new"]
        deployment.server.statuses.clear()
        deployment.server.restarts = False
        deployment.server.start()
        wait_until(lambda: not deployment.server.alive, 200.0, deployment.describe)
        assert deployment.server.process
        assert deployment.server.process.returncode == 1
        return str(json.loads((deployment.run / "failed.json").read_text()))

    with nothing_left(deployment):
        deployment.start()
        assert deployment.run_to_the_end(300.0) == 0
        # Another lock: more steps than agreed to.
        study.write_text(
            agreed.replace("local_steps = 6", "local_steps = 7").replace("local-steps = 6", "local-steps = 7")
        )
        assert study.read_text() != agreed
        said = run_again()
        assert "FECG-507" in said
        assert "FECG-413" in said
        refusal = (deployment.folder / "city.log").read_text()
        assert "FECG-413 lock of study hostile" in refusal
        assert "fedecg-client accept hostile" in refusal
        assert (deployment.members["city"].folder / "state" / "locks" / "hostile.proposed.txt").exists()
        # The agreed lock again, and a phase that one site no longer allows.
        study.write_text(agreed)
        policy(deployment, "city", phases=["align"])
        said = run_again()
        assert "FECG-507" in said
        assert "FECG-417" in said
        assert [entry["stage"] for entry in json.loads((deployment.run / "rounds.json").read_text())] == [
            "align"
        ] * 2
        # A study that is no longer on the list.
        policy(deployment, "city", phases=["align", "survival", "evaluate"], studies=["another"])
        said = run_again()
        assert "FECG-507" in said
        assert "FECG-411" in said


# --- on the wire, and on the network -------------------------------------------------------------------------------


class Listener:
    """Reads every object of every message out of the SuperLink's database while it is there."""

    def __init__(self, database: Path) -> None:
        self.database, self.seen, self.ended = database, dict[str, bytes](), threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while not self.ended.wait(0.02):
            try:
                connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=1.0)
                try:
                    rows = connection.execute("SELECT object_id, content FROM objects WHERE is_available = 1")
                    self.seen |= {
                        str(name): bytes(content) for name, content in rows if name not in self.seen
                    }
                finally:
                    connection.close()
            except sqlite3.Error:
                continue  # not there yet, or being written

    def end(self) -> dict[str, bytes]:
        """Object id -> content."""
        self.ended.set()
        self.thread.join(10.0)
        return self.seen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_study_pickles_nothing_and_the_coordinator_calls_nobody(tmp_path: Path) -> None:
    deployment = Deployment(make_hospitals(tiny_study("wire"), tmp_path / "hospitals"), tmp_path / "wire")
    trace = tmp_path / "trace"
    deployment.server.before = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace)]
    with nothing_left(deployment):
        deployment.start()
        listener = Listener(deployment.coordinator.database)
        assert deployment.run_to_the_end(600.0) == 0
        objects = listener.end()
    kinds = {content.split(b" ", 1)[0].split(b"\0", 1)[0] for content in objects.values()}
    assert {b"Message", b"RecordDict", b"ArrayRecord", b"Array"} <= kinds, kinds
    weights = [content for content in objects.values() if b"numpy.ndarray" in content[:400]]
    assert weights
    assert not any(map(pickles_in, objects.values()))
    text = trace.read_text()
    called = re.findall(r"sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"", text)
    assert called  # the trace works
    assert {host.removeprefix("::ffff:") for _, host in called} <= {"127.0.0.1", "::1"}
    assert {int(port) for port, _ in called} <= {
        deployment.coordinator.settings.port, deployment.coordinator.settings.control_port, 0
    }  # fmt: skip
    assert "nscd" not in text
    assert "htons(53)" not in text
