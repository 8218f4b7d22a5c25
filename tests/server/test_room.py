"""How much room a round needs on the coordinator's disk, and that it is counted by model and site."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from coordinator_process import make_coordinator

from fedecg_server.array_file import DamagedError, array_bytes, write_arrays
from fedecg_server.coordinator import Coordinator
from fedecg_server.room import CHECKPOINT, no_room

MODEL = 250_000  # parameters: 1 MB
SITES = 5


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    """Five sites, a checkpoint of one model."""
    made = make_coordinator(tmp_path / "coordinator")
    entries = {
        f"site-{number}": {"key": f"keys/site-{number}.pub", "fingerprint": "SHA256:" + "A" * 43}
        for number in range(SITES)
    }
    made.sites_file.write_text(json.dumps({"sites": entries}))
    write_arrays(
        made.run / CHECKPOINT,
        {"align": np.zeros(MODEL, np.float32), "cumulative": np.zeros(9, np.float64)},
        "{}",
    )
    return made


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As where so much room is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_round_needs_a_checkpoint_and_two_models_a_site(coordinator: Coordinator) -> None:
    with no_file_beyond(14_900_000):
        assert "a round needs 15 MB" in no_room(coordinator)
    with no_file_beyond(15_100_000):
        assert no_room(coordinator) == ""


def test_the_head_of_a_checkpoint_tells_what_its_arrays_take(coordinator: Coordinator) -> None:
    assert array_bytes(coordinator.run / CHECKPOINT) == {"align": 4 * MODEL, "cumulative": 72}


def test_without_a_whole_checkpoint_the_rest_is_counted(coordinator: Coordinator) -> None:
    (coordinator.run / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(DamagedError):
        array_bytes(coordinator.run / CHECKPOINT)
    with no_file_beyond(3_900_000):
        assert "a round needs 4 MB" in no_room(coordinator)
    with no_file_beyond(4_100_000):
        assert no_room(coordinator) == ""
