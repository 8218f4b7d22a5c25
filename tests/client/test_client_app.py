"""The ClientApp never lets an exception's text leave the site."""

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from fedecg.federation.messages import Failure, JoinReply, JoinTask, TrainTask, pack
from fedecg_client.app import SITES_VARIABLE, app
from fedecg_simulations.grid import InProcessGrid

SECRET = "patient-4711"


def ask(config: dict[str, object], content: RecordDict, kind: str = "query.join") -> str:
    """The JSON that a node with these settings sends back."""
    InProcessGrid(app, {})  # messages need the identity of a run
    message = Message(content, 1, kind)
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})  # type: ignore[arg-type]
    reply = app(message, context)
    return str(reply.content.config_records["document"]["json"])


def site(folder: Path, cohort: str) -> Path:
    (folder / "site.toml").write_text('name = "north"\nstore = "store"\ncohort = "cohort.csv"\n')
    (folder / "cohort.csv").write_text(cohort)
    return folder


HEADER = "record,patient,part,event,follow_up_days,age_years,female,codes\n"


def test_joining_tells_counts_by_part(tmp_path: Path) -> None:
    rows = "0,1,train,1,10.0,60.0,1.0,{}\n1,2,train,0,20.0,61.0,0.0,{}\n2,3,test,0,5.0,70.0,1.0,{}\n"
    folder = site(tmp_path, HEADER + rows)
    reply = JoinReply.model_validate_json(ask({"site-folder": str(folder)}, pack(JoinTask(study="s"))))
    assert reply.site == "north"
    assert {part: (c.patients, c.events) for part, c in reply.parts.items()} == {
        "train": (2, 1),
        "test": (1, 0),
    }


def test_a_bad_cohort_table_leaves_the_site_as_a_code_alone(tmp_path: Path) -> None:
    folder = site(tmp_path, HEADER + f"0,{SECRET},train,1,-3.0,60.0,1.0,{{}}\n")
    text = ask({"site-folder": str(folder)}, pack(JoinTask(study="s")))
    failure = Failure.model_validate_json(text)
    assert failure.site == "north"
    assert failure.failed.startswith("FECG-22")
    assert SECRET not in text


def test_a_fault_nobody_foresaw_leaves_as_599_and_its_values_stay_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = site(tmp_path, HEADER)
    monkeypatch.setattr("fedecg_client.app.load_site", _explode)
    text = ask({"site-folder": str(folder)}, pack(JoinTask(study="s")))
    assert Failure.model_validate_json(text).failed == "FECG-599"
    assert SECRET not in text + caplog.text
    assert "ZeroDivisionError at test_client_app.py:" in caplog.text


def _explode(_: object) -> None:
    raise ZeroDivisionError(SECRET)


def test_a_message_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = site(tmp_path, HEADER)
    text = ask({"site-folder": str(folder)}, pack(JoinTask(study="s")), kind="train")
    assert Failure.model_validate_json(text).failed == "FECG-501"


def test_settings_out_of_range_are_refused_by_the_site(tmp_path: Path) -> None:
    folder = site(tmp_path, HEADER)
    task = TrainTask(stage="align", round=1, bank_sha256="", settings={"align": {"local-steps": -1}})
    text = ask({"site-folder": str(folder)}, pack(task), kind="train")
    assert Failure.model_validate_json(text).failed == "FECG-103"


def test_a_bank_of_another_hash_is_refused(tmp_path: Path) -> None:
    folder = site(tmp_path, HEADER)
    task = TrainTask(stage="align", round=1, bank_sha256="other", settings={})
    text = ask({"site-folder": str(folder)}, pack(task), kind="train")
    assert Failure.model_validate_json(text).failed == "FECG-514"


def test_a_node_without_a_site_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITES_VARIABLE, raising=False)
    failure = Failure.model_validate_json(ask({}, pack(JoinTask(study="s"))))
    assert (failure.site, failure.failed) == ("unnamed", "FECG-105")


def test_numbered_nodes_find_their_folder_by_name_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        site(tmp_path / name, HEADER + "0,1,train,1,10.0,60.0,1.0,{}\n")
        file = tmp_path / name / "site.toml"
        file.write_text(file.read_text().replace("north", name))
    monkeypatch.setenv(SITES_VARIABLE, str(tmp_path))
    reply = JoinReply.model_validate_json(ask({"partition-id": 1}, pack(JoinTask(study="s"))))
    assert reply.site == "b"
