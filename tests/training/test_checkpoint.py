"""The checkpoint of a round: when it is written, whose it is, and that it never costs the round."""

import copy
import logging
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fedecg.training import (
    UNWATCHED,
    Checkpoint,
    Watch,
    read_sealed,
    train_align,
    train_survival,
    write_sealed,
)

STEPS = 6


class KilledError(Exception):
    """As near as a test in one process comes to a kill."""


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.fixture
def align(make_site, linear_network, study, bank_vectors):
    """Run an alignment round on a fresh network: `align(watch, die_in_step)` -> weights, what was trained."""
    site = make_site(range(40))
    settings = study(
        align={"batch-size": 16, "local-steps": STEPS},
        federation={"algorithm": "fedprox", "proximal-mu": 0.5},
    )

    def run(watch=UNWATCHED, die_in_step=None):
        network, steps = linear_network(dropout=0.3), 0
        embed = network.embed

        def embed_or_die(*arguments):
            nonlocal steps
            steps += 1
            if steps == die_in_step:
                raise KilledError
            return embed(*arguments)

        network.embed, outside = embed_or_die, torch.get_rng_state()
        trained = train_align(network, site, settings, 1, bank_vectors, watch)
        assert torch.equal(torch.get_rng_state(), outside)
        return vector(network), trained.loss, steps

    return run


def kept_at(path, key="task", **arguments):
    return Watch(Checkpoint(path, key, **arguments))


def killed(align, watch, die_in_step):
    with pytest.raises(KilledError):
        align(watch, die_in_step)


@pytest.mark.parametrize("die_in_step", range(1, STEPS + 1))
def test_a_round_continues_from_wherever_it_ended(align, tmp_path, die_in_step):
    path = tmp_path / "round"
    killed(align, kept_at(path, every_s=0.0), die_in_step)
    weights, loss, steps = align(kept_at(path))
    expected, expected_loss, _ = align()
    assert torch.equal(weights, expected)
    assert loss == expected_loss
    assert steps == STEPS - (die_in_step - 1)


def test_a_round_killed_again_and_again_ends_with_the_same_bits(align, tmp_path):
    path = tmp_path / "round"
    for _ in range(STEPS - 1):
        killed(align, kept_at(path, every_s=0.0), die_in_step=2)
    weights, loss, steps = align(kept_at(path, every_s=0.0))
    expected, expected_loss, _ = align()
    assert torch.equal(weights, expected)
    assert (loss, steps) == (expected_loss, 1)


def test_a_round_that_was_ended_after_its_last_step_makes_none_again(align, tmp_path):
    path = tmp_path / "round"
    weights, loss, _ = align(kept_at(path, every_s=0.0))
    again, loss_again, steps = align(kept_at(path))
    assert torch.equal(again, weights)
    assert (loss_again, steps) == (loss, 0)


def test_the_file_is_written_when_the_time_has_come_and_not_before(align, tmp_path):
    path, seconds, written = tmp_path / "round", iter(range(0, 1000, 10)), []

    def clock():
        written.append(read_sealed(path)[1]["step"] if path.exists() else None)
        return float(next(seconds))

    align(kept_at(path, every_s=25.0, clock=clock))
    # Asked when it is made, at 0 s, after each step, and after a write: it is due at 25 s, and at 65 s.
    assert written == [None, None, None, None, 3, 3, 3, 3, 6]


def test_a_short_round_writes_nothing(align, tmp_path):
    align(kept_at(tmp_path / "folder" / "round"))
    assert not (tmp_path / "folder").exists()


def test_the_file_of_another_task_is_not_read_and_then_replaced(align, tmp_path):
    path = tmp_path / "round"
    killed(align, kept_at(path, "one", every_s=0.0), die_in_step=4)
    _, _, steps = align(kept_at(path, "another"))
    assert steps == STEPS
    assert read_sealed(path)[1]["task"][0] == "one"
    align(kept_at(path, "another", every_s=0.0))
    assert read_sealed(path)[1]["task"][0] == "another"


def test_the_file_of_another_torch_is_not_read(align, tmp_path, monkeypatch):
    path = tmp_path / "round"
    monkeypatch.setattr(torch, "__version__", "1.0")
    killed(align, kept_at(path, every_s=0.0), die_in_step=4)
    monkeypatch.undo()
    assert align(kept_at(path))[2] == STEPS


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: b"\xff" * len(data),
    ],
    ids=["empty", "cut", "one bit", "junk"],
)
def test_a_damaged_file_is_as_if_there_were_none(align, tmp_path, damage):
    path = tmp_path / "round"
    killed(align, kept_at(path, every_s=0.0), die_in_step=4)
    path.write_bytes(damage(path.read_bytes()))
    weights, _, steps = align(kept_at(path))
    assert steps == STEPS
    assert torch.equal(weights, align()[0])


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_round(align, tmp_path, caplog):
    path = tmp_path / "round"
    with full_disk():
        weights, loss, _ = align(kept_at(path, every_s=0.0))
    expected, expected_loss, _ = align()
    assert torch.equal(weights, expected)
    assert loss == expected_loss
    assert not list(tmp_path.iterdir())
    assert "checkpoint of the round not written: FECG-601 file round: found file too large" in caplog.text
    assert str(tmp_path) not in caplog.text


@contextmanager
def full_disk():
    """No file of this process grows: every write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_end_of_a_round_removes_its_file(align, tmp_path):
    path = tmp_path / "round"
    watch = kept_at(path, every_s=0.0)
    align(watch)
    assert path.exists()
    watch.checkpoint.remove()
    watch.checkpoint.remove()
    assert not path.exists()


def test_a_continued_round_says_where_it_goes_on(align, tmp_path, caplog):
    path = tmp_path / "round"
    killed(align, kept_at(path, every_s=0.0), die_in_step=4)
    with caplog.at_level(logging.INFO, "fedecg.training"):
        align(kept_at(path))
    assert "the round goes on after step 3" in caplog.text


def test_progress_is_told_of_every_step_and_of_those_before_a_kill(align, tmp_path):
    path, told = tmp_path / "round", []
    killed(align, kept_at(path, every_s=0.0), die_in_step=4)
    align(Watch(Checkpoint(path, "task"), lambda step, steps: told.append((step, steps))))
    assert told == [(step, STEPS) for step in (3, 4, 5, 6)]


def test_a_watched_round_is_the_round(make_site, linear_network, study, tmp_path):
    """Writing after every step changes no bit: the generators are read, not drawn from."""
    site, settings = make_site(range(60)), study(survival={"loss": "cox-batch", "batch-size": 16})
    start = linear_network(dropout=0.3)
    watched, plain = copy.deepcopy(start), copy.deepcopy(start)
    first = train_survival(watched, site, settings, 1, None, kept_at(tmp_path / "round", every_s=0.0))
    assert train_survival(plain, site, settings, 1, None) == first
    assert torch.equal(vector(watched), vector(plain))
    assert not torch.equal(vector(watched), vector(start))


def test_a_file_of_numbers_and_words_comes_back_exactly(tmp_path):
    arrays = {
        "scalar": np.array(3.5, np.float32),
        "none": np.zeros((0, 2)),
        "bytes": np.arange(5, dtype=np.uint8),
    }
    document = {"huge": 2**127 + 1, "sum": 0.1 + 0.2, "none": None, "word": "\u00e9"}
    write_sealed(tmp_path / "a" / "file", arrays, document)
    back, said = read_sealed(tmp_path / "a" / "file")
    assert said == document
    assert {name: (a.shape, a.dtype, a.tolist()) for name, a in back.items()} == {
        name: (a.shape, a.dtype, a.tolist()) for name, a in arrays.items()
    }


def test_no_file_and_a_folder_in_its_place_are_no_files(tmp_path):
    assert read_sealed(tmp_path / "none") is None
    assert read_sealed(tmp_path) is None
