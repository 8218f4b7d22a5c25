"""The running SuperLink's list of nodes, over its control port on this machine.

In:  the control address and the authority's certificate. Out: nodes with their keys; registering and unregistering.
Called by `fedecg_server.sites`. Connects to 127.0.0.1 directly: a proxy in the environment is not asked.

Uses of Flower 1.39: the protobuf messages `flwr.proto.control_pb2.{RegisterNode,UnregisterNode,ListNodes}{Request,
Response}`, as POST to /v1/control/* with content type application/protobuf (`flwr.supercore.control`). Not Flower's
command line: its list leaves the keys out, so that nobody could tell which node id a key has that was registered
before; and a call takes 1-3 s instead of 5 ms.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.errors import RunError
from fedecg_server.superlink import check_flower_version

__all__ = ["KeyInUseError", "NodeRegistry", "NotRunningError", "key_of"]

ANSWER_S = 10.0  # longest wait for one answer
KEY_IN_USE, NODE_NOT_FOUND = 23, 24  # flwr.supercore.error.ApiErrorCode
UNREGISTERED = "unregistered"
MEDIA_TYPE = "application/protobuf"


class NotRunningError(Exception):
    """No SuperLink listens: keys are registered when it starts."""


class KeyInUseError(Exception):
    """The SuperLink has the key already: registered, or unregistered for good."""


class NodeRegistry:
    """The nodes of one SuperLink; use it in a `with` statement.

    Args:
        port: its control port on 127.0.0.1.
        ca: the authority's certificate, ca.crt.
    """

    def __init__(self, port: int, ca: Path) -> None:
        self._port, self._ca = port, ca

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            NotRunningError: nobody listens there.
            RunError: FECG-675 if something else than our SuperLink does; FECG-681 another version of Flower.
        """
        check_flower_version()
        try:
            context = ssl.create_default_context(cafile=str(self._ca))
            self._connection = http.client.HTTPSConnection(
                "127.0.0.1", self._port, timeout=ANSWER_S, context=context
            )
            self._connection.connect()
        except ConnectionRefusedError:
            raise NotRunningError from None
        except OSError as error:
            raise _refused(type(error).__name__) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()

    def nodes(self) -> dict[bytes, int]:
        """Every registered key (PEM, as `key_of` gives it) and its node id; without those that were unregistered.

        Raises:
            RunError: FECG-675 if the SuperLink does not answer as expected.
        """
        from flwr.proto.control_pb2 import ListNodesRequest, ListNodesResponse

        answer = _parsed(ListNodesResponse, self._ask("list-nodes", ListNodesRequest()))
        return {node.public_key: node.node_id for node in answer.nodes_info if node.status != UNREGISTERED}

    def register(self, key: bytes) -> int:
        """Let whoever holds the private key join; its node id.

        Raises:
            KeyInUseError: the SuperLink knows the key already.
            RunError: FECG-675 if it does not answer as expected.
        """
        from flwr.proto.control_pb2 import RegisterNodeRequest, RegisterNodeResponse

        answer = _parsed(
            RegisterNodeResponse, self._ask("register-node", RegisterNodeRequest(public_key=key))
        )
        if not answer.node_id:
            raise _refused("an answer without node id")
        return int(answer.node_id)

    def unregister(self, node: int) -> None:
        """Let that node join no more, and refuse its messages from now on; nothing if it is gone already.

        Raises:
            RunError: FECG-675 if the SuperLink does not answer as expected.
        """
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._ask("unregister-node", UnregisterNodeRequest(node_id=node))

    def _ask(self, method: str, request: Any) -> bytes:
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        try:
            self._connection.request("POST", f"/v1/control/{method}", request.SerializeToString(), headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise _refused(type(error).__name__) from None
        if answer.status == http.client.OK:
            return body
        code = _error_code(body)
        if code == KEY_IN_USE:
            raise KeyInUseError
        if code == NODE_NOT_FOUND and method == "unregister-node":
            return b""
        raise _refused(f"HTTP status {answer.status}, Flower's code {code}")


def key_of(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """A key in the form in which Flower keeps it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public_key.public_bytes(serialization.Encoding.PEM, form)


def _parsed(kind: Any, body: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return kind.FromString(body)
    except DecodeError:
        raise _refused("an answer that is no message of Flower's") from None


def _error_code(body: bytes) -> int:
    try:
        return int(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return 0


def _refused(found: str) -> RunError:
    return RunError(
        "FECG-675",
        "SuperLink's list of nodes",
        found=found,
        expected="the answer of this coordinator's SuperLink on control-port",
        fix="See log/superlink.log; is control-port another program's? Sites are registered at the next start.",
    )
