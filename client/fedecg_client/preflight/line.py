"""The way to the coordinator, step by step: proxy, name, TCP, TLS. Nothing of the site is sent but a greeting.

In:  host and port. Out: one `Check` each, in the order in which a connection is made; what a step found is kept for the
next. Called by preflight and doctor. gRPC honours the proxy variables of the environment, so these steps do, too.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from fedecg_client.preflight.check import Check, failed, passed, skipped

__all__ = ["Line", "proxy_for"]

TCP_S, DNS_S, SOON = 10.0, 10.0, timedelta(days=30)
SHOWN_NAMES = 5
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the dates have a check of their own
NAME_ERRORS = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC's order; it does not read capitals
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
PORT_FIX = "Check the port in server.address: the fleet port, 9092 unless the coordinator said otherwise."
WALL_FIX = "Check server.address and the firewall: one outgoing TCP port to the coordinator."
KIND = "connection"


class Line:
    """The checks of one connection.

    Args:
        host, port: of the coordinator.
        ca: file of its authority.
    """

    def __init__(self, host: str, port: int, ca: Path) -> None:
        self.host, self.port, self.ca = host, port, ca
        self.proxy = proxy_for(host)
        self.resolved = self.reached = self.secure = self.trusted = self.named = self.in_force = False
        self.certificate: x509.Certificate | None = None

    @property
    def usable(self) -> bool:
        """Whether a site would talk to whoever is there."""
        return self.secure and self.trusted and self.named and self.in_force

    def check_proxy(self) -> Check:
        """Does a variable of the environment lead the connection through a proxy?"""
        if self.proxy is None:
            return passed("proxy", KIND, "none: the connection goes straight to the coordinator")
        words = (
            f"{self.proxy.variable}: the only connection goes to that proxy, which is asked to connect to the "
            "coordinator; TLS stays end to end"
        )
        return passed("proxy", KIND, words, host=self.proxy.host, port=self.proxy.port)

    def check_name(self) -> Check:
        """The look-up of the one name that a site looks up."""
        host = self.proxy.host if self.proxy else self.host
        whose = "the proxy's name" if self.proxy else "the coordinator's name"
        if _is_address(host):
            self.resolved = True
            return passed("dns", KIND, "an address: no name is looked up")
        found = _looked_up(host)
        if isinstance(found, str):
            return failed(
                "dns", KIND, "FECG-653", f"{whose} cannot be looked up ({found})",
                "Check server.address, and this machine's name servers; or write the coordinator's address, if its "
                "certificate names it.",
            )  # fmt: skip
        self.resolved = True
        return passed("dns", KIND, f"{whose} has {len(found)} address(es)", addresses=found)

    def check_tcp(self) -> Check:
        """A connection, and no more."""
        if not self.resolved:
            return skipped("tcp", KIND, "the name could not be looked up")
        try:
            self._connected().close()
        except _ProxyRefusedError as error:
            return failed(
                "tcp", KIND, "FECG-649", f"a proxy that does not connect to the coordinator ({error})",
                "Ask whoever runs the proxy to let this one host and port pass, or exempt it: no_proxy.",
            )  # fmt: skip
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            where = "proxy" if self.proxy else "coordinator"
            return failed(
                "tcp", KIND, "FECG-649",
                f"nobody who listens at the {where}" if refused else f"no answer ({_words(error)})",
                f"{WALL_FIX} Is the coordinator running?" if refused else WALL_FIX,
            )  # fmt: skip
        self.reached = True
        return passed("tcp", KIND, f"port {self.port} answers")

    def check_tls(self) -> Check:
        """TLS and HTTP/2, whoever it is."""
        if not self.reached:
            return skipped("tls", KIND, "no TCP connection")
        try:
            with self._secured(ssl.CERT_NONE) as line:
                speaks, version = line.selected_alpn_protocol(), line.version()
                self.certificate = x509.load_der_x509_certificate(line.getpeercert(binary_form=True) or b"")
                if speaks != "h2":
                    http = _speaks_http1(line)
                    found = "a web server: the coordinator's control port?" if http else "TLS without HTTP/2"
                    return failed("tls", KIND, "FECG-647", found, PORT_FIX)
        except ssl.SSLError as error:
            plain = error.reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
            found = "a server that speaks plain text" if plain else f"no TLS ({error.reason})"
            return failed("tls", KIND, "FECG-647", found, f"{PORT_FIX} Plain text is refused.")
        except OSError as error:
            return failed(
                "tls", KIND, "FECG-647", f"a server that ends the greeting ({_words(error)})", PORT_FIX
            )
        except ValueError as error:
            return failed(
                "tls",
                KIND,
                "FECG-647",
                f"a certificate that cannot be read ({type(error).__name__})",
                PORT_FIX,
            )
        self.secure = True
        return passed("tls", KIND, f"{version}, HTTP/2")

    def check_chain(self) -> Check:
        """Did the site's ca.crt sign the certificate?"""
        if self.certificate is None:
            return skipped("tls-chain", KIND, "no certificate was shown")
        try:
            with self._secured(ssl.CERT_REQUIRED):
                self.trusted = True
        except ssl.SSLCertVerificationError as error:
            return failed(
                "tls-chain", KIND, "FECG-644", f"a certificate that ca.crt did not sign ({error.verify_message})",
                "Compare the fingerprint of ca.crt with the coordinator's over the phone and bring the right file; or "
                "exempt the address from TLS inspection.",
                issuer=self.certificate.issuer.rfc4514_string(),
            )  # fmt: skip
        except OSError as error:
            return failed("tls-chain", KIND, "FECG-649", f"a line that was cut ({_words(error)})", WALL_FIX)
        return passed("tls-chain", KIND, "signed by ca.crt")

    def check_certificate_name(self) -> Check:
        """Is it made out to the host of server.address?"""
        if not self.trusted or self.certificate is None:
            return skipped("tls-name", KIND, "the certificate is not trusted")
        names = _names(self.certificate)
        told = ", ".join(names[:SHOWN_NAMES]) or "nobody"
        try:
            with self._secured(ssl.CERT_REQUIRED, check_name=True):
                self.named = True
                return passed("tls-name", KIND, f"made out to {self.host}", names=names)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code not in NAME_ERRORS:
                raise
            return failed(
                "tls-name", KIND, "FECG-645", f"one made out to {told}, not to {self.host}",
                "Write server.address as the coordinator gave it (a name is not its IP address); or the coordinator "
                "makes a certificate for this name.",
                names=names,
            )  # fmt: skip

    def check_dates(self) -> Check:
        """Is it in force today, and for how long?"""
        if self.certificate is None:
            return skipped("certificate", KIND, "no certificate was shown")
        now, ends = datetime.now(UTC), self.certificate.not_valid_after_utc
        if not self.certificate.not_valid_before_utc <= now <= ends:
            words = "has expired" if now > ends else "is not valid yet"
            return failed(
                "certificate", KIND, "FECG-646", f"a certificate that {words}",
                "Check this machine's clock. If it is right, the coordinator runs `fedecg-server renew`: "
                "nothing changes here.",
                expires=f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            )  # fmt: skip
        self.in_force = True
        soon = "; tell the coordinator to renew it" if ends - now < SOON else ""
        return passed(
            "certificate", KIND, f"until {ends:%Y-%m-%d}{soon}", expires=f"{ends:%Y-%m-%dT%H:%M:%SZ}"
        )

    def _connected(self) -> socket.socket:
        if self.proxy is None:
            return socket.create_connection((self.host, self.port), TCP_S)
        line = socket.create_connection((self.proxy.host, self.proxy.port), TCP_S)
        try:
            target = f"{self.host}:{self.port}"
            line.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self.proxy.header}\r\n".encode())
            answer = line.recv(4096).split(b"\r\n")[0].split()
            if len(answer) < 2 or answer[1] != b"200":
                number = answer[1].decode("ascii", "replace")[:3] if len(answer) > 1 else "no HTTP"
                raise _ProxyRefusedError(number)
        except BaseException:
            line.close()
            raise
        return line

    def _secured(self, verify: ssl.VerifyMode, *, check_name: bool = False) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = check_name, verify
        context.set_alpn_protocols(["h2"])
        if verify is not ssl.CERT_NONE:
            context.load_verify_locations(str(self.ca))
            context.verify_flags |= NO_CHECK_TIME
        raw = self._connected()
        try:
            return context.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise


@dataclass(frozen=True)
class Proxy:
    """A proxy of the environment; `header` may hold a password and is never shown."""

    variable: str
    host: str
    port: int
    header: str = ""


class _ProxyRefusedError(OSError):
    """The proxy answered, and not with 200."""


def proxy_for(host: str) -> Proxy | None:
    """The proxy that gRPC would take for a host; none: straight on.

    Source: grpc 1.8x, src/core/handshaker/http_connect/http_proxy_mapper.cc.
    """
    variable = next((name for name in PROXY_VARIABLES if os.environ.get(name)), None)
    if variable is None or _is_exempt(host):
        return None
    url = urlsplit(os.environ[variable])
    if url.scheme != "http" or not url.hostname:
        return None  # gRPC takes no other kind, and says nothing
    header = ""
    if url.username:
        from base64 import b64encode
        from urllib.parse import unquote

        login = f"{unquote(url.username)}:{unquote(url.password or '')}"
        header = f"Proxy-Authorization: Basic {b64encode(login.encode()).decode()}\r\n"
    return Proxy(variable, url.hostname, url.port or 80, header)


def _is_exempt(host: str) -> bool:
    """gRPC's rule: the host ends with an entry, or lies in its network; the first variable that is set counts."""
    entries = next((os.environ[name] for name in NO_PROXY_VARIABLES if os.environ.get(name)), "")
    for entry in filter(None, (part.strip().lower() for part in entries.split(","))):
        if host.lower().endswith(entry) or (_is_address(host) and _in_network(host, entry)):
            return True
    return False


def _in_network(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _looked_up(host: str) -> list[str] | str:
    """Its addresses, or why there are none. The system's own look-up has no time limit: it is left behind then."""
    found: list[list[str] | str] = []

    def look() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.append(sorted({str(entry[4][0]) for entry in entries}))
        except OSError as error:
            found.append(_words(error))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(DNS_S)
    return found[0] if found else f"no answer within {DNS_S:.0f} s"


def _speaks_http1(line: ssl.SSLSocket) -> bool:
    with suppress(OSError):
        line.sendall(b"HEAD / HTTP/1.1\r\nHost: preflight\r\nConnection: close\r\n\r\n")
        return line.recv(16).startswith(b"HTTP/1.")
    return False


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _words(error: OSError) -> str:
    return (
        "no answer in time"
        if isinstance(error, TimeoutError)
        else str(error.strerror or type(error).__name__)
    )
