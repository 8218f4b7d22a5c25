"""Questions to the fleet port that change nothing there: is it one, does it know this key, is the clock right?

In:  address, authority, key. Out: what the port answers. Called by preflight and doctor, also while an agent runs.
The question is an activation with a heartbeat interval that Flower refuses: it looks for the key first (2004: not on
the list), then at the interval (2003: on the list), and activates nothing.

Flower internals used (flwr 1.39; an import that fails is FECG-642):
    flwr.proto.fleet_pb2.ActivateNodeRequest, flwr.proto.fleet_pb2_grpc.FleetStub
    flwr.common.constant.{PUBLIC_KEY_HEADER,SIGNATURE_HEADER,TIMESTAMP_HEADER}   what a signed call carries
    flwr.supercore.primitives.asymmetric.{public_key_to_bytes,sign_message}
    flwr.supercore.runtime_version_compatibility.RuntimeVersionMetadata          says our version with each call
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Literal

import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fedecg_client.faults import RunOverError, away, sorted_fault

__all__ = ["Answer", "Probe"]

Answer = Literal["unsigned", "clock", "unknown", "registered", "open"]
CALL_S = 10.0
REFUSED_INTERVAL = 0.0
INVALID_INTERVAL, NOT_ACTIVATED = 2003, 2004  # flwr.supercore.error.ApiErrorCode
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),  # no TXT look-up
    ("grpc.enable_retries", 0),
]


class Probe:
    """A connection for questions.

    Args:
        address: host:port.
        ca: PEM.
    """

    def __init__(self, address: str, ca: bytes) -> None:
        self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options=CHANNEL)
        self._stub = FleetStub(self._channel)
        self._version = RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()

    def ask(self, key: ec.EllipticCurvePrivateKey | None, shift_s: float = 0.0) -> Answer:
        """Ask once.

        Args:
            key: that signs the call; none: an unsigned call.
            shift_s: added to this machine's time in the signature.

        Returns:
            "unsigned" or "clock": refused for that; "unknown" or "registered": what the list says of the key; "open":
            a server that asks nobody for a key.

        Raises:
            LinkError: as the agent's link would meet it.
        """
        public = public_key_to_bytes(key.public_key()) if key else b""
        signature = self._signature(key, public, shift_s) if key else ()
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=REFUSED_INTERVAL)
        try:
            self._stub.ActivateNode(request, timeout=CALL_S, metadata=(*self._version, *signature))
        except grpc.RpcError as error:
            return _sorted(error, signed=key is not None)
        return "open"

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _signature(
        self, key: ec.EllipticCurvePrivateKey, public: bytes, shift_s: float
    ) -> tuple[tuple[str, str | bytes], ...]:
        time = (datetime.now(UTC) + timedelta(seconds=shift_s)).isoformat()
        signature = sign_message(key, time.encode("ascii"))
        return (PUBLIC_KEY_HEADER, public), (TIMESTAMP_HEADER, time), (SIGNATURE_HEADER, signature)


def _sorted(error: grpc.RpcError, *, signed: bool) -> Answer:
    details = str(error.details() or "")
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return "unsigned" if not signed else "clock" if "timestamp" in details.lower() else "unknown"
    number = _flower_code(details)
    if number in (INVALID_INTERVAL, NOT_ACTIVATED) and not signed:
        return "open"
    if number == INVALID_INTERVAL:
        return "registered"
    if number == NOT_ACTIVATED:
        return "unknown"
    fault = sorted_fault(error)
    if isinstance(fault, RunOverError):
        raise away("permission denied")
    raise fault


def _flower_code(details: str) -> int | None:
    try:
        document = json.loads(details)
    except ValueError:
        return None
    code = document.get("code") if isinstance(document, dict) else None
    return code if isinstance(code, int) else None
