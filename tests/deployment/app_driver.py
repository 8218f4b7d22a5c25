"""A ServerApp process that a test drives: it takes a submitted run and sends what it is told to, message by message.

python app_driver.py HOST:PORT CA SECRET
stdin:  {"number": 1, "kind": "query.join", "nodes": [...], "within_s": 20}, one a line; an empty line ends the run
stdout: {"ready": run id}, then for each line {"number", "replies": [{"node", "error", "reason", "text", "seconds"}]}
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedecg.config import StudySettings
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.federation.messages import pack
from fedecg.federation.tasks import JoinTask
from fedecg.fingerprint import code_fingerprint

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


def greeting() -> RecordDict:
    """What a coordinator sends to a node that it meets: a study, whole."""
    study = StudySettings()
    code_fingerprint.cache_clear()  # the agent's worker has been started since
    lock = StudyLock(
        study=study.name,
        settings=settings_document(study),
        bank_sha256="0" * 64,
        code_fingerprint=code_fingerprint(),
    )
    return pack(JoinTask(lock=lock))


def acquire(address: str, ca: bytes, secret: bytes) -> str:
    """Wait for a submitted run; its token."""
    interceptors = [
        RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
        SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({ACQUIRE})),
    ]
    client = RuntimeHttpClient.from_server_address(
        server_address=address, insecure=False, root_certificates=ca, interceptors=interceptors
    )
    while True:
        with suppress(httpx.HTTPError):  # a line that the SuperLink has just closed
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
            if answer.HasField("task") and answer.token:
                return str(answer.token)
        time.sleep(0.1)


def exchange(grid: HttpGrid, order: dict) -> list[dict]:
    """Send one message to each node and wait for the replies."""
    content = greeting() if order["kind"] == "query.join" else RecordDict({})
    messages = [Message(content, node, order["kind"]) for node in order["nodes"]]
    began = time.monotonic()
    pending, replies = {name for name in grid.push_messages(messages) if name}, []
    while pending and time.monotonic() - began < order["within_s"]:
        for reply in grid.pull_messages(pending):
            pending.discard(reply.metadata.reply_to_message_id)
            text = "" if reply.has_error() else str(reply.content.config_records["document"]["json"])
            replies.append(
                {
                    "node": reply.metadata.src_node_id,
                    "error": reply.error.code if reply.has_error() else None,
                    "reason": reply.error.reason if reply.has_error() else None,
                    "text": text,
                    "seconds": time.monotonic() - began,
                }
            )
        time.sleep(0.05)
    return replies


def main(address: str, ca_file: str, secret_file: str) -> None:
    """Take one run and serve it until stdin ends."""
    ca = Path(ca_file).read_bytes()
    token = acquire(address, ca, Path(secret_file).read_bytes())
    grid = HttpGrid(address, False, ca, token=token)
    beats = HeartbeatSender(make_task_heartbeat_fn_http(grid._runtime_client))
    beats.start()
    given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    grid.set_run(run_from_proto(given.run))
    context = context_from_proto(given.context)
    print(json.dumps({"ready": given.run.run_id}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        order = json.loads(line)
        print(json.dumps({"number": order["number"], "replies": exchange(grid, order)}), flush=True)
    output = PushTaskOutputRequest(
        context=context_to_proto(context), sub_status=SubStatus.COMPLETED, details=""
    )
    grid._runtime_client.PushTaskOutput(output)


if __name__ == "__main__":
    main(*sys.argv[1:4])
