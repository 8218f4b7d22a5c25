"""The ClientApp never lets an exception's text leave the site."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from asking import HEADER, ROWS, answer, join, lock_of, said, study, task_of, train, write_site

from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure, JoinReply, JoinTask
from fedecg.fingerprint import code_fingerprint
from fedecg.text import frequencies_sha256, load_bank, write_bank
from fedecg_client.app import SITES_VARIABLE

SECRET = "patient-4711"
LOCK = lock_of(study())


def failed(text: str) -> str:
    """The code of a failure, which is all that a reply may say beside the site's name."""
    assert json.loads(text).keys() == {"site", "failed"}
    return Failure.model_validate_json(text).failed


def test_joining_tells_counts_by_part_the_code_and_the_lock(tmp_path: Path) -> None:
    reply = JoinReply.model_validate_json(join(write_site(tmp_path), LOCK))
    assert reply.site == "north"
    assert {part: (c.patients, c.events) for part, c in reply.parts.items()} == {
        "train": (2, 1),
        "test": (1, 0),
    }
    assert (reply.lock_sha256, reply.code_fingerprint) == (LOCK.sha256(), code_fingerprint())


def test_a_bad_cohort_table_leaves_the_site_as_a_code_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_site(tmp_path, cohort=HEADER + f"0,{SECRET},train,1,-3.0,60.0,1.0,{{}}\n")
    text = join(folder, LOCK)
    assert failed(text).startswith("FECG-22")
    assert json.loads(text)["site"] == "north"
    assert SECRET not in text + caplog.text
    assert "FECG-22" in caplog.text


def test_a_fault_nobody_foresaw_leaves_as_599_and_its_values_stay_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_site(tmp_path)
    monkeypatch.setattr("fedecg_client.app.load_site", _explode)
    text = join(folder, LOCK)
    assert failed(text) == "FECG-599"
    assert SECRET not in text + caplog.text
    assert "ZeroDivisionError at test_client_app.py:" in caplog.text


def _explode(_: object) -> None:
    raise ZeroDivisionError(SECRET)


def test_no_log_of_a_site_names_a_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_site(tmp_path, cohort=HEADER + ROWS.replace("60.0", "67.891"))
    with caplog.at_level(logging.DEBUG):
        join(folder, LOCK)
        train(folder, task_of(LOCK))
    assert "joins a study" in caplog.text
    assert "FECG-" in caplog.text  # there is no signal store
    assert "67.891" not in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_message_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert failed(said(answer(write_site(tmp_path), pack(JoinTask(lock=LOCK)), "train"))) == "FECG-501"


def test_a_site_without_a_policy_takes_part_in_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_site(tmp_path, policy=None)
    assert failed(join(folder, LOCK)) == "FECG-411"
    assert failed(said(train(folder, task_of(LOCK)))) == "FECG-411"
    assert "north: FECG-411 study: found 'hf'; expected none: no policy.studies." in caplog.text


def test_settings_out_of_range_are_refused_by_the_site(tmp_path: Path) -> None:
    folder = write_site(tmp_path)
    settings = {**LOCK.settings, "align": {"local-steps": -1}}
    assert failed(said(train(folder, task_of(LOCK, settings=settings)))) == "FECG-103"
    assert failed(join(folder, LOCK.model_copy(update={"settings": settings}))) == "FECG-103"


def test_a_bank_of_another_hash_is_refused(tmp_path: Path) -> None:
    folder = write_site(tmp_path, 'studies = ["*"]')
    assert failed(said(train(folder, task_of(LOCK, bank_sha256="other")))) == "FECG-514"


def test_a_space_for_reports_of_another_hash_is_refused_by_a_site_that_has_reports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_site(tmp_path, 'studies = ["*"]')
    task = task_of(LOCK, space_sha256="0" * 64)
    assert failed(said(train(folder, task))) != "FECG-514"  # no reports: nothing of the site depends on it
    (folder / "site.toml").write_text((folder / "site.toml").read_text() + '\n[text]\nencoder = "model"\n')
    assert failed(said(train(folder, task))) == "FECG-514"
    assert "code bank's space for reports: found another sha256 than the study's" in caplog.text
    own = task_of(LOCK, space_sha256=load_bank("minilm-demo").space_sha256)
    assert failed(said(train(folder, own))) != "FECG-514"


def test_frequencies_of_another_hash_are_refused_where_classes_are_weighted(tmp_path: Path) -> None:
    folder = write_site(tmp_path, 'studies = ["*"]')
    weighing = lock_of(study(align={"class-weights": "public"}))
    assert failed(said(train(folder, task_of(weighing, frequencies_sha256="0" * 64)))) == "FECG-514"
    assert (
        failed(said(train(folder, task_of(weighing, frequencies_sha256=frequencies_sha256())))) != "FECG-514"
    )
    assert failed(said(train(folder, task_of(LOCK, frequencies_sha256="0" * 64)))) != "FECG-514"


def test_a_node_without_a_site_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITES_VARIABLE, raising=False)
    text = said(answer(None, pack(JoinTask(lock=LOCK))))
    assert failed(text) == "FECG-105"
    assert json.loads(text)["site"] == "unnamed"


def test_numbered_nodes_find_their_folder_by_name_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("south", "north"):
        write_site(tmp_path / name, name=name)
    monkeypatch.setenv(SITES_VARIABLE, str(tmp_path))
    reply = said(answer(None, pack(JoinTask(lock=LOCK)), **{"partition-id": 1}))
    assert JoinReply.model_validate_json(reply).site == "south"


def test_a_simulation_keeps_nothing(tmp_path: Path) -> None:
    folder = write_site(tmp_path, 'studies = ["*"]\nkeep-replies = false')
    JoinReply.model_validate_json(join(folder, LOCK))
    failed(said(train(folder, task_of(LOCK))))
    assert sorted(file.name for file in folder.iterdir()) == ["cohort.csv", "site.toml"]


def test_a_deployed_site_opens_no_bank_but_its_own(tmp_path: Path) -> None:
    """A coordinator may name any path; only the file's name counts, below banks/ of the site's folder."""
    theirs = tmp_path / "coordinator" / "study-bank.safetensors"
    bank = load_bank("minilm-demo")
    write_bank(replace(bank, name="study-bank"), theirs)
    folder = write_site(tmp_path / "site", 'studies = ["*"]\n[server]\naddress = "127.0.0.1:9092"')
    settings = {**LOCK.settings, "align": {**LOCK.settings["align"], "bank": str(theirs)}}
    asked = task_of(LOCK, settings=settings)
    assert failed(said(train(folder, asked))) == "FECG-241"
    shutil.copytree(theirs.parent, folder / "banks")
    assert failed(said(train(folder, asked))) != "FECG-241"
