"""`fedecg`: which version this is, and where the commands are.

In:  the command line. Out: text. The commands that do the work belong to the roles: fedecg-simulate for researchers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

__all__ = ["main"]

DESCRIPTION = "Federated, multi-site training of ECG heart-failure risk models."
COMMANDS = "Researchers: fedecg-simulate --help. A code bank: python -m fedecg.text.build --help."


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser("fedecg", description=DESCRIPTION, epilog=COMMANDS)
    parser.add_argument("--version", action="version", version=f"fedecg {version('fedecg')}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0
