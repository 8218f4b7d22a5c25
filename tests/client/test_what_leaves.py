"""Everything that leaves a site is in its record first; a site may want to look at a study's first messages itself."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from asking import answer, join, lock_of, said, study, task_of, train
from killed_app import SECTIONS
from prepared_site import first_weights, prepared_site

from fedecg.config import StudySettings, parse_settings
from fedecg.federation.messages import pack, reply_sha256, size_bytes
from fedecg.federation.tasks import Failure, JoinTask, TrainReply
from fedecg_client.cli import main
from fedecg_client.doctor import FIXES

STUDY = study(**{**SECTIONS, "align": {"local-steps": 2, "batch-size": 16}})
LOCK = lock_of(STUDY)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_site(tmp_path_factory.mktemp("prepared"), STUDY)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return first_weights(STUDY)


@pytest.fixture
def north(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "north"))


def asked_to_look(folder: Path) -> Path:
    file = folder / "site.toml"
    file.write_text(file.read_text().replace("[privacy]", '[privacy]\napprove = "first-round"'))
    return folder


def record(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "state/egress/egress.jsonl").read_text().splitlines()]


def code(text: str) -> str:
    return Failure.model_validate_json(text).failed


def test_every_message_stands_in_the_record_with_each_of_its_numbers(
    north: Path, weights: np.ndarray
) -> None:
    joined = join(north, LOCK)
    reply = train(north, task_of(LOCK), weights)
    first, second = record(north)
    assert (first["study"], first["phase"], first["kind"]) == ("hf", "join", "JoinReply")
    assert first["values"]["parts.train.patients"] == json.loads(joined)["parts"]["train"]["patients"]
    assert (second["phase"], second["round"], second["kind"]) == ("align", 1, "TrainReply")
    assert second["sha256"] == reply_sha256(reply)
    assert second["bytes"] == size_bytes(reply)
    document = TrainReply.model_validate_json(said(reply))
    assert second["values"]["loss"] == document.loss
    sent = {f"weights/{name}": array for name, array in reply["weights"].items()}
    assert [array["name"] for array in second["arrays"]] == list(sent)
    assert sum(array["shape"][0] for array in second["arrays"]) == len(weights)
    for array in second["arrays"]:
        values = sent[array["name"]]
        assert array["sha256"] == hashlib.sha256(values.data).hexdigest()
        assert (array["bytes"], array["dtype"]) == (len(values.data), "float32")
        norm = float(np.linalg.norm(values.numpy().astype(np.float64)))
        assert array["l2"] == pytest.approx(norm, rel=1e-12)
    assert stat.S_IMODE((north / "state/egress/egress.jsonl").stat().st_mode) == 0o600


def test_a_failure_and_a_reply_sent_again_are_in_the_record_too(north: Path, weights: np.ndarray) -> None:
    assert code(said(train(north, task_of(LOCK), weights))) == "FECG-416"  # it has not joined
    join(north, LOCK)
    train(north, task_of(LOCK), weights)
    train(north, task_of(LOCK), weights)
    failed, _, first, again = record(north)
    assert (failed["kind"], failed["values"]["failed"]) == ("Failure", "FECG-416")
    assert again["sha256"] == first["sha256"]


def test_what_cannot_be_recorded_does_not_leave(
    north: Path, weights: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    join(north, LOCK)
    shutil.rmtree(north / "state/egress")
    (north / "state/egress").write_text("in the way")
    reply = train(north, task_of(LOCK), weights)
    assert code(said(reply)) == "FECG-448"
    assert "weights" not in reply
    assert "north: FECG-448 record of what leaves the site: found a file that is there already" in caplog.text
    assert "FECG-448" in FIXES


def test_virtual_sites_keep_no_record(north: Path) -> None:
    file = north / "site.toml"
    file.write_text(file.read_text().replace('studies = ["hf"]', 'studies = ["*"]'))
    assert "lock-sha256" in join(north, LOCK)
    assert not (north / "state").exists()


def test_the_command_shows_what_left_by_run_and_study(
    north: Path, weights: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    join(north, LOCK)
    train(north, task_of(LOCK), weights)
    assert main(["egress", str(north)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["when", "(UTC)", "study"]
    assert "JoinReply (join)" in shown[1]
    assert "TrainReply (align)" in shown[2]
    assert shown[3].startswith("2 messages, ")
    assert main(["egress", str(north), "--json", "--study", "hf"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [message["kind"] for message in document["messages"]] == ["JoinReply", "TrainReply"]
    run = document["messages"][0]["run"]
    assert main(["egress", str(north), "--json", "--run", f"{run}-other"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == []


def test_the_first_messages_of_a_study_wait_for_a_look_and_the_kept_reply_goes_then(
    north: Path, weights: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_to_look(north)
    assert code(join(north, LOCK)) == "FECG-449"
    assert [entry["values"].get("failed") for entry in record(north)] == ["FECG-449"]  # nothing else has left
    held = json.loads((north / "state/egress/held-hf.json").read_text())
    assert (held["look"], held["values"]["parts.train.patients"] > 0) == ("join", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["approve", str(north), "hf"]) == 1
    assert code(join(north, LOCK)) == "FECG-449"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["approve", str(north), "hf"]) == 0
    assert "parts.train.patients" in capsys.readouterr().out
    assert "lock-sha256" in join(north, LOCK)
    first = train(north, task_of(LOCK), weights)
    assert code(said(first)) == "FECG-449"
    held = json.loads((north / "state/egress/held-hf.json").read_text())
    assert (held["look"], len(held["arrays"]) > 0) == ("first-round", True)
    assert main(["approve", str(north), "hf", "--yes"]) == 0
    monkeypatch.setattr("fedecg_client.work.train_align", _never)
    reply = train(north, task_of(LOCK), weights)
    assert reply_sha256(reply) == held["sha256"]  # what was looked at, byte for byte, without training again
    assert record(north)[-1]["sha256"] == held["sha256"]
    assert not (north / "state/egress/held-hf.json").exists()


def _never(*_: object) -> None:
    raise AssertionError("trained again")


def test_another_lock_of_the_study_waits_again(north: Path) -> None:
    asked_to_look(north)
    join(north, LOCK)
    assert main(["approve", str(north), "hf", "--yes"]) == 0
    assert "lock-sha256" in join(north, LOCK)
    other = lock_of(parse_settings(StudySettings, {**LOCK.settings, "seed": 3}))
    assert main(["accept", str(north), "hf", other.sha256()]) == 0
    assert code(join(north, other)) == "FECG-449"


def test_nobody_there_to_answer_is_a_no_and_nothing_waiting_is_told(
    north: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_to_look(north)
    assert main(["approve", str(north), "hf"]) == 4
    assert "FECG-451 message of study hf: found none that waits; expected one that" in capsys.readouterr().err
    join(north, LOCK)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["approve", str(north), "hf"]) == 1


def test_a_damaged_list_of_approvals_holds_everything(north: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked_to_look(north)
    join(north, LOCK)
    (north / "state/egress/approved.json").write_text("[]")
    assert code(join(north, LOCK)) == "FECG-450"
    assert (
        "FECG-450 approved.json in state/egress: found another document; expected a file as fedecg wrote it"
        in caplog.text
    )


def test_a_message_that_cannot_be_read_is_answered_and_recorded(north: Path) -> None:
    text = said(answer(north, pack(JoinTask(lock=LOCK)), "train"))
    assert code(text) == "FECG-501"
    assert record(north)[0]["study"] == ""
