"""Command lines of `fedecg-client`, and changes of a site's folder; plain functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fedecg_server.certificates import TlsFiles

ROOT = Path(__file__).resolve().parents[2]


PYTHON = [sys.executable, "-c"]


Captured = pytest.CaptureFixture[str]


def words(
    folder: Path, tls: TlsFiles, *more: str, name: str = "north", server: str = "127.0.0.1:9"
) -> list[str]:
    return ["init", str(folder), "--name", name, "--server", server, "--ca", str(tls.ca), *more]


def said(site: Path, **document: object) -> None:
    (site / "state/status.json").write_text(json.dumps({"site": "north", **document}))
