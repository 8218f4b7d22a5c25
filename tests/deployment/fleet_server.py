"""A gRPC server whose every method does the same: what a site meets where the coordinator should be."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

__all__ = ["Call", "FleetServers"]

Call = Callable[[bytes, grpc.ServicerContext], bytes]


class Fleet(grpc.GenericRpcHandler):
    """Answers every method with one call, or knows none."""

    def __init__(self, call: Call | None) -> None:
        self.call = call

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        del details  # whatever is called
        return grpc.unary_unary_rpc_method_handler(self.call) if self.call else None


class FleetServers:
    """Servers on loopback; `end` stops them."""

    def __init__(self) -> None:
        self.servers: list[grpc.Server] = []

    def start(self, certificate: tuple[bytes, bytes] | None, call: Call | None = None) -> int:
        """One with this certificate, or without one; its port."""
        server = grpc.server(ThreadPoolExecutor(2), handlers=[Fleet(call)])
        if certificate:
            chain, key = certificate
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, chain),)))
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.servers.append(server)
        return int(port)

    def end(self) -> None:
        """Stop them all."""
        for server in self.servers:
            server.stop(0).wait()
