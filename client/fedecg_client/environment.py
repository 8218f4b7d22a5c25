"""The environment that Flower and gRPC find at a site, set before either is loaded.

In:  nothing. Out: variables of this process. Called by `fedecg-client`, and by agent and worker, which may be started
without it.
"""

from __future__ import annotations

import os

__all__ = ["FLOWER_ENVIRONMENT", "set_environment"]

FLOWER_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def set_environment() -> None:
    """No telemetry, no look for newer versions; names by the system's own resolver, /etc/hosts and all; no lines of
    gRPC about itself, since faults are told in our own words. gRPC's two may be set otherwise from outside."""
    os.environ.update(FLOWER_ENVIRONMENT)
    os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
