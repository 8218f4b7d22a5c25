"""Replies are kept until they arrived: sent again byte for byte, without training, whatever was killed or is full."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from asking import (
    POLICY,
    answer,
    full_disk,
    join,
    lock_of,
    out_of_hours,
    said,
    study,
    task_of,
    train,
    write_site,
)
from killed_app import SECTIONS, STEPS

from fedecg.cohort import write_cohort
from fedecg.config import DataSettings
from fedecg.federation.documents import GridDocument
from fedecg.federation.messages import pack, reply_sha256
from fedecg.federation.tasks import EvaluateTask, Failure, SurveyTask, TrainReply
from fedecg.model import build_network, stage_tensors, to_vector
from fedecg.signals import build_store, store_key
from fedecg.text import load_bank
from fedecg_client.outbox import Outbox, task_key
from fedecg_client.workplace import ProgressFile, phase_of
from fedecg_simulations.sources import load_dataset

LOCK = lock_of(study())
KEY, OTHER = "a" * 64, "b" * 64


def reply(number: int = 1, size: int = 5) -> object:
    document = Failure(site="north", failed=f"FECG-{number:03d}")  # any document will do
    return pack(document, np.arange(size, dtype=np.float32) / 3)


def same(first, second) -> bool:
    arrays = [
        {name: (a.dtype, a.shape, a.stype, a.data) for name, a in content["weights"].items()}
        for content in (first, second)
    ]
    return arrays[0] == arrays[1] and said(first) == said(second)


def task_files(folder: Path) -> list[str]:
    return sorted(file.name[:3] for file in folder.iterdir())


# The folder of replies


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint16])
def test_a_kept_reply_comes_back_byte_for_byte(tmp_path, kind):
    content = pack(Failure(site="north", failed="FECG-001"), np.arange(7).astype(kind))
    Outbox(tmp_path / "new" / "folder").keep(KEY, content)
    found = Outbox(tmp_path / "new" / "folder").find(KEY)
    assert same(found, content)
    assert reply_sha256(found) == reply_sha256(content)


def test_a_reply_without_weights_comes_back(tmp_path):
    content = pack(Failure(site="north", failed="FECG-001"))
    Outbox(tmp_path).keep(KEY, content)
    assert said(Outbox(tmp_path).find(KEY)) == said(content)


def test_nothing_is_found_for_another_task_or_in_no_folder(tmp_path):
    Outbox(tmp_path).keep(KEY, reply())
    assert Outbox(tmp_path).find(OTHER) is None
    assert Outbox(tmp_path / "none").find(KEY) is None
    Outbox(tmp_path / "none").acknowledge("x")


def test_a_reply_that_arrived_is_forgotten_and_no_other(tmp_path):
    outbox = Outbox(tmp_path)
    outbox.keep(KEY, reply(1))
    outbox.keep(OTHER, reply(2))
    for unknown in (None, "", "*", "?" * 64, "0" * 64, KEY, f"{KEY}-{reply_sha256(reply(1))}"):
        outbox.acknowledge(unknown)
    assert outbox.find(KEY)
    outbox.acknowledge(reply_sha256(reply(1)))
    assert outbox.find(KEY) is None
    assert same(outbox.find(OTHER), reply(2))


def test_the_oldest_go_beyond_the_bound(tmp_path):
    outbox = Outbox(tmp_path)
    for number in range(6):
        outbox.keep(f"{number:064d}", reply(number))
        time.sleep(0.002)  # files of one instant have no order
    assert [number for number in range(6) if outbox.find(f"{number:064d}")] == [2, 3, 4, 5]
    assert len(list(tmp_path.iterdir())) == 4


def test_what_killed_processes_left_half_written_goes_with_the_next_reply(tmp_path):
    (tmp_path / f".{OTHER}-x.safetensors.4711.part").write_bytes(b"half")
    Outbox(tmp_path).keep(KEY, reply())
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"FECG-001", b"FECG-002"),
        lambda data: b"\0" * len(data),
    ],
    ids=["empty", "cut", "one bit of the weights", "another document", "zeros"],
)
def test_a_damaged_reply_is_as_if_it_were_not_there(tmp_path, damage):
    Outbox(tmp_path).keep(KEY, reply())
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert Outbox(tmp_path).find(KEY) is None
    Outbox(tmp_path).keep(KEY, reply())
    assert same(Outbox(tmp_path).find(KEY), reply())


def test_a_whole_reply_under_the_name_of_another_is_not_sent(tmp_path):
    Outbox(tmp_path).keep(KEY, reply(1))
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / f"{KEY}-{reply_sha256(reply(2))}.safetensors")
    assert Outbox(tmp_path).find(KEY) is None


def test_a_disk_that_is_full_costs_the_copy_and_not_the_reply(tmp_path, caplog):
    with full_disk():
        Outbox(tmp_path).keep(KEY, reply())
    assert not list(tmp_path.iterdir())
    assert "the reply is sent but not kept: FECG-601 file" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_hashes_of_replies_differ_with_document_weights_and_their_kind():
    contents = [
        reply(1),
        reply(2),
        reply(1, size=6),
        pack(Failure(site="north", failed="FECG-001")),
        pack(Failure(site="north", failed="FECG-001"), np.arange(5).astype(np.float16)),
    ]
    assert len({reply_sha256(content) for content in contents}) == len(contents)
    assert reply_sha256(reply(1)) == reply_sha256(reply(1))


def test_a_task_is_the_same_whatever_it_acknowledges_and_in_whatever_order():
    weights = np.arange(3, dtype=np.float32)
    key = task_key(task_of(LOCK), weights)
    assert task_key(task_of(LOCK, accepted={"north": "x"}), weights.copy()) == key
    assert task_key(task_of(LOCK, settings=dict(reversed(LOCK.settings.items()))), weights) == key
    others = [
        task_key(task_of(LOCK, round=2), weights),
        task_key(task_of(LOCK, stage="survival"), weights),
        task_key(task_of(LOCK, kind=SurveyTask), weights),
        task_key(task_of(LOCK), weights * 2),
        task_key(task_of(LOCK), weights.view(np.uint32)),
        task_key(task_of(LOCK), None),
        task_key(task_of(LOCK), weights, "other files"),
    ]
    assert len({key, *others}) == 1 + len(others)


# Progress


def test_progress_is_shown_at_once_and_then_once_a_second(tmp_path):
    seconds = [0.0]
    file = tmp_path / "progress.json"
    progress = ProgressFile(file, task_of(LOCK, round=3), clock=lambda: seconds[0])

    def shown_after(step: int, at: float) -> tuple[int, int]:
        seconds[0] = at
        progress(step, 10)
        document = json.loads(file.read_text())
        return document["step"], document["steps"]

    assert shown_after(0, 0.0) == (0, 10)
    assert shown_after(1, 0.5) == (0, 10)
    assert shown_after(2, 1.0) == (2, 10)
    assert shown_after(3, 1.9) == (2, 10)
    assert shown_after(4, 2.0) == (4, 10)
    document = json.loads(file.read_text())
    assert document.keys() == {"study", "phase", "round", "step", "steps", "started"}
    assert (document["study"], document["phase"], document["round"]) == ("hf", "align", 3)
    progress.remove()
    assert not list(tmp_path.iterdir())


def test_a_step_that_shows_nothing_costs_next_to_nothing(tmp_path):
    progress = ProgressFile(tmp_path / "progress.json", task_of(LOCK))
    started = time.perf_counter()
    for step in range(1000):
        progress(step, 1000)
    assert time.perf_counter() - started < 0.1  # a step of training takes 1000 times as long


def test_progress_that_cannot_be_written_is_not_shown(tmp_path):
    ProgressFile(tmp_path / "none" / "progress.json", task_of(LOCK))(1, 2)
    assert not list(tmp_path.iterdir())


def test_phases_have_the_names_of_statuses():
    tasks = [task_of(LOCK), task_of(LOCK, stage="survival"), task_of(LOCK, kind=SurveyTask, stage="survival")]
    assert [phase_of(task) for task in tasks] == ["align", "survival", "survey"]


# Through the app, at a site with data


STUDY = study(**{**SECTIONS, "align": {"local-steps": 2, "batch-size": 16}})
TRAINED = lock_of(STUDY)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A site with ECGs of 40 simulated patients, that has not joined yet."""
    folder = tmp_path_factory.mktemp("prepared")
    settings = STUDY.model_copy(update={"data": DataSettings(sites={"city": 40}, test_patients=5)})
    dataset = load_dataset(settings)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(folder / "stores", key, settings.signals, dataset.recordings, powerline="none")
    write_site(folder / "site")
    shutil.copytree(store.folder, folder / "site" / "store")
    write_cohort(dataset.cohort, folder / "site" / "cohort.csv")
    return folder / "site"


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    bank = load_bank(STUDY.align.bank)
    network = build_network(STUDY.model, 256, bank.vectors.shape[1], seed=0)
    return to_vector(network, stage_tensors(network, "align", True))


@pytest.fixture
def north(prepared, tmp_path) -> Path:
    """The site, joined; file times as they were."""
    folder = tmp_path / "north"
    shutil.copytree(prepared, folder)
    assert "lock-sha256" in join(folder, TRAINED)
    return folder


def no_training(monkeypatch) -> None:
    def train_align(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("fedecg_client.work.train_align", train_align)


def test_the_same_task_is_answered_byte_for_byte_without_training(north, weights, monkeypatch, caplog):
    first = train(north, task_of(TRAINED), weights)
    assert TrainReply.model_validate_json(said(first)).steps == 2
    no_training(monkeypatch)
    with caplog.at_level(logging.INFO, "fedecg.client"):
        again = train(north, task_of(TRAINED, accepted={"south": "0" * 64}), weights)
    assert same(again, first)
    assert reply_sha256(again) == reply_sha256(first)
    assert "north: this task was done before; its reply is sent again" in caplog.text


def test_another_task_is_another_reply(north, weights):
    first, second = (train(north, task_of(TRAINED, round=number), weights) for number in (1, 2))
    assert TrainReply.model_validate_json(said(second)).round == 2
    assert reply_sha256(second) != reply_sha256(first)
    assert len(task_files(north / "state/replies")) == 2


def test_a_later_task_that_says_that_the_reply_arrived_lets_it_go(north, weights, monkeypatch):
    first = train(north, task_of(TRAINED), weights)
    replies = north / "state/replies"
    train(north, task_of(TRAINED, round=2, accepted={"south": reply_sha256(first)}), weights)
    assert len(task_files(replies)) == 2  # another site's
    second = train(north, task_of(TRAINED, round=2, accepted={"north": reply_sha256(first)}), weights)
    assert [file.stem.split("-")[1] for file in replies.iterdir()] == [reply_sha256(second)]
    no_training(monkeypatch)
    assert Failure.model_validate_json(said(train(north, task_of(TRAINED), weights))).failed == "FECG-599"


def test_a_task_that_the_gate_refuses_lets_nothing_go(north, weights):
    first = train(north, task_of(TRAINED), weights)
    foreign = task_of(TRAINED, lock_sha256="0" * 64, accepted={"north": reply_sha256(first)})
    assert Failure.model_validate_json(said(train(north, foreign, weights))).failed == "FECG-416"
    assert len(task_files(north / "state/replies")) == 1


def test_a_kept_reply_goes_at_any_hour_and_counts_no_round(north, weights):
    first = train(north, task_of(TRAINED), weights)
    file = north / "site.toml"
    never = out_of_hours()
    file.write_text(file.read_text().replace(POLICY, never))
    assert same(train(north, task_of(TRAINED), weights), first)
    assert (
        Failure.model_validate_json(said(train(north, task_of(TRAINED, round=2), weights))).failed
        == "FECG-418"
    )
    file.write_text(file.read_text().replace(never, f"{POLICY}\nrounds-a-day = 1"))
    assert same(train(north, task_of(TRAINED), weights), first)
    assert (
        Failure.model_validate_json(said(train(north, task_of(TRAINED, round=2), weights))).failed
        == "FECG-419"
    )


def test_a_mended_table_is_trained_on_and_the_kept_reply_is_not_sent(north, weights):
    first = TrainReply.model_validate_json(said(train(north, task_of(TRAINED), weights)))
    table = north / "cohort.csv"
    rows = table.read_text().splitlines()
    last = max(number for number, row in enumerate(rows) if ",train," in row)
    table.write_text("\n".join(rows[:last] + rows[last + 1 :]) + "\n")
    again = TrainReply.model_validate_json(said(train(north, task_of(TRAINED), weights)))
    assert again.patients == first.patients - 1


def test_a_damaged_reply_is_worked_out_again(north, weights):
    first = train(north, task_of(TRAINED), weights)
    (file,) = (north / "state/replies").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    again = train(north, task_of(TRAINED), weights)
    assert same(again, first)  # without noise the same bits, too
    assert same(Outbox(file.parent).find(file.stem.split("-")[0]), first)


def test_with_a_full_disk_a_round_is_done_but_stays_until_it_can_be_recorded(north, weights, caplog):
    with full_disk():
        content = train(north, task_of(TRAINED), weights)
    assert Failure.model_validate_json(said(content)).failed == "FECG-448"
    assert "the reply is sent but not kept: FECG-601" in caplog.text
    assert "the round is not counted: FECG-601" in caplog.text
    assert str(north) not in caplog.text
    content = train(north, task_of(TRAINED), weights)
    assert TrainReply.model_validate_json(said(content)).steps == 2


def test_a_site_that_keeps_no_replies_keeps_none(north, weights):
    file = north / "site.toml"
    file.write_text(file.read_text().replace(POLICY, f"{POLICY}\nkeep-replies = false"))
    train(north, task_of(TRAINED), weights)
    assert sorted(file.name for file in (north / "state").iterdir()) == [
        "egress",
        "locks",
        "rounds-of-the-day.json",
    ]


def test_when_all_is_done_nothing_shows_work_and_no_round_is_kept(north, weights):
    train(north, task_of(TRAINED), weights)
    files = {
        str(file.relative_to(north / "state")) for file in (north / "state").rglob("*") if file.is_file()
    }
    assert {name for name in files if not name.startswith("replies/")} == {
        "egress/egress.jsonl",
        "egress/egress.lock",
        "locks/hf.json",
        "locks/hf.txt",
        "rounds-of-the-day.json",
    }


def test_evaluations_are_kept_too(north, weights, monkeypatch):
    grid = GridDocument(time_cuts_days=[100.0], risk_cuts=[0.0])
    task = task_of(
        TRAINED, EvaluateTask, stage="survival", grid=grid, edges_days=[0.0, 100.0], parts=["validation"]
    )
    network = build_network(STUDY.model, 256, load_bank(STUDY.align.bank).vectors.shape[1], seed=0)
    vector = to_vector(network, stage_tensors(network, "survival", False))
    first = answer(north, pack(task, vector), "evaluate")
    assert "counts" in said(first)
    monkeypatch.setattr("fedecg_client.work.survival_sums", None)
    assert said(answer(north, pack(task, vector), "evaluate")) == said(first)


@pytest.mark.slow
def test_a_round_killed_in_the_middle_goes_on_and_its_reply_is_that_of_an_unbroken_one(
    prepared, weights, tmp_path
):
    """SIGKILL from outside, at a real app with a real network, then another process with the same message."""
    for name in ("killed", "whole"):
        shutil.copytree(prepared, tmp_path / name)
    np.save(tmp_path / "weights.npy", weights)
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("killed_app.py"),
            *(tmp_path / name for name in ("killed", "whole", "weights.npy")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["replies"][0] == result["replies"][1]
    assert 0 < result["step"] < STEPS
    assert f"the round goes on after step {result['step']}" in (tmp_path / "killed/log").read_text()
    assert "the round goes on" not in (tmp_path / "whole/log").read_text()
    assert (result["shown"]["phase"], result["shown"]["steps"]) == ("align", STEPS)
    assert not list((tmp_path / "killed/state/checkpoint").iterdir())
    assert not (tmp_path / "killed/state/progress.json").exists()
