"""Shared by all tests: two torch threads, the folder of real data, and a reason where it is absent."""

import os
from pathlib import Path

import pytest

import fedecg  # noqa: F401  (sets how threads wait, before torch loads)

import torch  # isort: skip

torch.set_num_threads(2)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real ECGs (`FEDECG_TEST_DATA`, default ../shared/data); tests skip where it is absent."""
    folder = Path(os.environ.get("FEDECG_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set FEDECG_TEST_DATA)")
    return folder
