"""What goes wrong between a site and its coordinator, sorted: what passes by itself, and what someone must mend.

In:  gRPC's error of a call to the fleet port. Out: a `LinkError` with code and fix, or `RunOverError`.
Called by the link. gRPC tells faults of TLS by text alone; `tests/client/test_link_faults.py` holds each text to the
gRPC that is installed, so that an upgrade cannot turn a wrong certificate into "away" unseen.
"""

from __future__ import annotations

import json

import grpc  # type: ignore[import-untyped]

from fedecg.errors import RunError

__all__ = [
    "AWAY", "REFUSED", "LinkError", "RunOverError", "StoppedError",
    "away", "credentials", "sorted_fault", "unknown_node", "version_error",
]  # fmt: skip

VERSION, CREDENTIALS, AUTHORITY, NAME, DATES, NO_FLEET = (
    "FECG-642", "FECG-643", "FECG-644", "FECG-645", "FECG-646", "FECG-647",
)  # fmt: skip
REFUSED, AWAY = "FECG-648", "FECG-649"
LASTING = {VERSION, CREDENTIALS, AUTHORITY, NAME, DATES, NO_FLEET}
NEVER_SENT = ("failed to connect", "errors resolving", "dns resolution failed")
# Flower's own numbers, flwr.supercore.error.ApiErrorCode.
RUNTIME_VERSION_INCOMPATIBLE = 1001


class StoppedError(Exception):
    """The agent is being stopped: whatever waits gives up at once."""


class RunOverError(Exception):
    """The run of a message is over, or the message is no longer wanted: it is dropped."""


class LinkError(Exception):
    """A call to the coordinator failed.

    Args:
        error: its code, and the fix.
        sent: whether the coordinator may have seen the call; then the answer to it may be lost.
    """

    def __init__(self, error: RunError, *, sent: bool = False) -> None:
        self.error, self.sent = error, sent
        super().__init__(str(error))

    @property
    def lasting(self) -> bool:
        """Does not pass by itself: settings, certificates or versions must be mended."""
        return self.error.code in LASTING


def sorted_fault(error: grpc.RpcError) -> LinkError | RunOverError:
    """The fault that gRPC's error stands for."""
    code, details = error.code(), str(error.details() or "")
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return RunOverError()
    if code == grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details.lower())
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return _unauthenticated(details)
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return _refused(details)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return _no_fleet("a gRPC server that does not know the fleet's calls")
    return away(f"{code.name.lower().replace('_', ' ')}", sent=True)


def away(found: str, *, sent: bool = False) -> LinkError:
    """The coordinator does not answer: it may be down, or the line cut. Passes by itself."""
    error = RunError(
        AWAY,
        "coordinator",
        found=found,
        expected="an answer on its fleet port",
        fix="Nothing to do if it is being restarted: the agent goes on trying. Otherwise check server.address and the "
        "firewall (one outgoing TCP port), or run `fedecg-client doctor`.",
    )
    return LinkError(error, sent=sent)


def _unavailable(details: str) -> LinkError:
    if "expired" in details or "not yet valid" in details:
        return _dates("expired" in details)
    if "certificate_verify_failed" in details or "bad_signature" in details:
        return _authority()
    if "hostname verification" in details or "not in peer certificate" in details:
        return _name()
    if "wrong_version_number" in details or "alpn" in details:
        return _no_fleet("a server that speaks no gRPC over TLS")
    if "security handshaker" in details:
        return LinkError(credentials("ca.crt", "a file that gRPC cannot read"))
    if "connection refused" in details:
        return away("connection refused")
    if "resol" in details or "lookup" in details:
        return away("a name that cannot be resolved")
    return away("no connection", sent=not details.startswith(NEVER_SENT))


def credentials(what: str, found: str) -> RunError:
    """A file that the connection needs cannot be used."""
    return RunError(
        CREDENTIALS,
        what,
        found=found,
        expected="[server] in site.toml with address, ca (PEM, brought by hand from the coordinator) and key (EC, "
        "OpenSSH format, made by `fedecg-client init`)",
        fix="Complete site.toml, or bring the file again; then run `fedecg-client doctor`.",
    )


def _dates(expired: bool) -> LinkError:
    return LinkError(
        RunError(
            DATES,
            "coordinator's certificate",
            found="one that has expired" if expired else "one that is not valid yet",
            expected="a certificate that is valid today",
            fix="Check this machine's clock. If it is right, the coordinator renews the certificate under the same CA: "
            "ca.crt and the sites' keys stay as they are.",
        )
    )


def _authority() -> LinkError:
    return LinkError(
        RunError(
            AUTHORITY,
            "coordinator's certificate",
            found="one that the CA in ca.crt did not sign",
            expected="the coordinator's own CA; no firewall may open the connection",
            fix="Compare the fingerprint of ca.crt with the coordinator's over the phone and bring the right file; or "
            "exempt the address from TLS inspection.",
        )
    )


def _name() -> LinkError:
    return LinkError(
        RunError(
            NAME,
            "coordinator's certificate",
            found="one made out to another name",
            expected="the host of server.address",
            fix="Write server.address as the coordinator gave it (a name is not its IP address); or the coordinator "
            "makes a certificate for this name.",
        )
    )


def _no_fleet(found: str) -> LinkError:
    return LinkError(
        RunError(
            NO_FLEET,
            "fleet port",
            found=found,
            expected="a Flower 1.39 SuperLink's gRPC fleet port with TLS",
            fix="Check the port in server.address (the fleet port, 9092 unless told otherwise); plain text is refused.",
        )
    )


def _unauthenticated(details: str) -> LinkError:
    if "timestamp" in details.lower():
        return _not_let_in(
            "a signature whose time is off (more than 5 s ahead, or 5 minutes behind)",
            "Set this machine's clock (NTP); it is UTC that counts.",
        )
    return unknown_node()


def unknown_node() -> LinkError:
    """The coordinator does not know this node, or does not any more."""
    return _not_let_in(
        "a key that is not this node's (removed, or the coordinator's database is new)",
        f"{REGISTER} {REMOVED}",
    )


REGISTER = (
    "Read the fingerprint of node.pub to the coordinator, who adds it with `fedecg-server site add`; the agent goes "
    "on trying and comes in without a restart. If another machine runs an agent with this key, stop one of them."
)


REMOVED = "A key that was removed does not come back: fedecg-client renew-key makes a new one."


def _refused(details: str) -> LinkError:
    if _flower_code(details) == RUNTIME_VERSION_INCOMPATIBLE:
        return LinkError(version_error("another minor version of Flower at the coordinator"))
    found = "a key that is not registered, or a node that counts as online already"
    return _not_let_in(found, f"{REGISTER} {REMOVED}")


def version_error(found: str) -> RunError:
    """Flower here, or there, is not the version that fedecg was made for, or the app does not start."""
    return RunError(
        VERSION,
        "installed programs",
        found=found,
        expected="flwr 1.39 on both sides, and fedecg with all that it requires",
        fix="Install fedecg again with its constraints file; both sides need the same release.",
    )


def _not_let_in(found: str, fix: str) -> LinkError:
    error = RunError(
        REFUSED, "node", found=found, expected="a key on the coordinator's list, used by one agent", fix=fix
    )
    return LinkError(error)


def _flower_code(details: str) -> int | None:
    try:
        document = json.loads(details)
    except ValueError:
        return None
    code = document.get("code") if isinstance(document, dict) else None
    return code if isinstance(code, int) else None
