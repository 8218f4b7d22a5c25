"""Fixtures of the ledger's tests."""

from pathlib import Path

import pytest
from ledgers import HAZARD, HISTOGRAM, TRAINING, spend

from fedecg.privacy.ledger import Purpose


@pytest.fixture
def used(tmp_path) -> Path:
    for number in range(3):
        spend(tmp_path, TRAINING, HAZARD, HISTOGRAM, purpose=Purpose("hf", "first", "align", number))
    return tmp_path
