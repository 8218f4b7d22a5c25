"""What the tests of the commands read and write; plain functions."""

from __future__ import annotations

import sys

import pytest

PYTHON = [sys.executable, "-c"]


Captured = pytest.CaptureFixture[str]
