"""When a site works, how often a day, and that the coordinator reads of every refusal its code and nothing else."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from asking import (
    NOON,
    POLICY,
    answer,
    gate,
    join,
    lock_of,
    out_of_hours,
    refusal,
    said,
    study,
    task_of,
    train,
    write_site,
)

from fedecg.errors import PolicyError, SettingsError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.documents import GridDocument
from fedecg.federation.messages import pack
from fedecg.federation.tasks import EvaluateTask, Failure, JoinReply, SurveyTask
from fedecg_client.gate import Gate
from fedecg_client.pinned import pinned_lock

LOCK = lock_of(study())
CHANGED = lock_of(study(align={"rounds": 3}))
GRID = GridDocument(time_cuts_days=[1.0], risk_cuts=[0.0])
EVALUATE = task_of(LOCK, EvaluateTask, stage="survival", grid=GRID, edges_days=[0.0], parts=["test"])


@pytest.fixture
def joined(tmp_path) -> Path:
    gate(tmp_path).admit_study(LOCK)
    return tmp_path


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ("20:00-20:00", 'expected an end that is not the beginning; all day is "00:00-24:00"'),
        ("00:00-00:00", 'expected an end that is not the beginning; all day is "00:00-24:00"'),
        ("00:00-24:59", 'expected two times from "00:00" to "24:00", such as "20:00-06:00"'),
        ("24:00-06:00", 'expected two times from "00:00" to "24:00"'),
        ("8-17", 'expected two times from "00:00" to "24:00"'),
        ("20:00-06:00 ", 'expected two times from "00:00" to "24:00"'),
    ],
)
def test_hours_in_which_a_site_would_never_work_or_that_no_clock_shows_are_refused(tmp_path, hours, expected):
    with pytest.raises(SettingsError) as refused:
        gate(tmp_path, f'{POLICY}\nhours = "{hours}"')
    assert refused.value.code == "FECG-103"
    assert f"policy.hours: {expected}" in str(refused.value)
    assert f"(found {hours!r})" in str(refused.value)


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("08:30-17:00", ["08:30", "12:00", "16:59"], ["08:29", "17:00", "00:00", "23:59"]),
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["21:59", "06:00", "12:00"]),
        ("00:00-24:00", ["00:00", "12:00", "23:59"], []),
        ("20:00-24:00", ["20:00", "23:59"], ["00:00", "19:59"]),
    ],
)
def test_work_is_done_in_the_hours_of_the_policy_only(joined, hours, inside, outside):
    def at(time: str) -> Gate:
        return gate(joined, f'{POLICY}\nhours = "{hours}"', datetime.fromisoformat(f"2026-05-04T{time}:30"))

    for time in inside:
        at(time).admit_work(EVALUATE, "key")
    for time in outside:
        error = refusal(at(time).admit_work, EVALUATE, "key")
        assert isinstance(error, PolicyError)
        assert str(error) == (
            f"FECG-418 hours of the site: found a task at {time}; expected {hours} local time (policy.hours)."
            " Wait for that time, or widen policy.hours in site.toml."
        )


TWO_A_DAY = f"{POLICY}\nrounds-a-day = 2"


def test_the_rounds_of_a_day_are_counted_over_restarts_and_begin_anew_at_midnight(joined):
    for key in ("one", "two"):
        gate(joined, TWO_A_DAY).admit_work(
            task_of(LOCK), key
        )  # each by a gate of its own, as after a restart
    error = refusal(gate(joined, TWO_A_DAY).admit_work, task_of(LOCK), "three")
    assert isinstance(error, PolicyError)
    assert str(error) == (
        "FECG-419 local rounds of the day: found 2 and one more; expected at most 2 (policy.rounds-a-day)."
        " The count starts anew at midnight; or raise policy.rounds-a-day in site.toml."
    )
    late = gate(joined, TWO_A_DAY, NOON.replace(hour=23, minute=59))
    assert refusal(late.admit_work, task_of(LOCK), "three").code == "FECG-419"
    gate(joined, TWO_A_DAY, NOON.replace(day=5, hour=0)).admit_work(task_of(LOCK), "three")


def test_a_round_that_is_asked_for_again_counts_once(joined):
    for key in ("one", "two", "one", "two"):
        gate(joined, TWO_A_DAY).admit_work(task_of(LOCK), key)
    counted = json.loads((joined / "state/rounds-of-the-day.json").read_text())
    assert counted == {"day": "2026-05-04", "rounds": ["one", "two"]}


def test_tasks_that_train_nothing_are_not_counted(joined):
    for number in range(5):
        gate(joined, TWO_A_DAY).admit_work(EVALUATE, str(number))
    assert not (joined / "state/rounds-of-the-day.json").exists()


def test_a_count_that_cannot_be_read_begins_anew(joined):
    file = joined / "state/rounds-of-the-day.json"
    for text in ("", "[]", '{"day": "2026-05-04"}', '{"day": "2026-05-04", "rounds": 5}'):
        file.write_text(text)
        gate(joined, TWO_A_DAY).admit_work(task_of(LOCK), "one")
        assert json.loads(file.read_text()) == {"day": "2026-05-04", "rounds": ["one"]}


def test_a_limit_that_was_set_is_not_lost_to_a_disk_that_is_full(joined, caplog):
    (joined / "state/rounds-of-the-day.json").mkdir()  # in the way of the file
    assert refusal(gate(joined, TWO_A_DAY).admit_work, task_of(LOCK), "one").code == "FECG-601"
    gate(joined).admit_work(task_of(LOCK), "one")
    assert "the round is not counted: FECG-601 file rounds-of-the-day.json" in caplog.text


def test_a_site_of_any_study_counts_only_where_a_limit_was_set(tmp_path):
    gate(tmp_path, 'studies = ["*"]').admit_work(task_of(LOCK), "one")
    assert not (tmp_path / "state").exists()
    limited = gate(tmp_path, 'studies = ["*"]\nrounds-a-day = 1')
    limited.admit_work(task_of(LOCK), "one")
    assert refusal(limited.admit_work, task_of(LOCK), "two").code == "FECG-419"


@pytest.mark.parametrize(
    ("policy", "lock", "code"),
    [
        ('studies = ["another"]', LOCK, "FECG-411"),
        (f'{POLICY}\nlocks = {{ hf = "{"0" * 64}" }}', LOCK, "FECG-412"),
        (POLICY, CHANGED, "FECG-413"),
        (POLICY, lock_of(study(), sites=["east"]), "FECG-414"),
        (f"{POLICY}\nmost-local-steps = 1", LOCK, "FECG-415"),
        (POLICY, lock_of(study(), code_fingerprint="f" * 64), "FECG-541"),
        (POLICY, lock_of(study("other"), study="hf"), "FECG-542"),
    ],
)
def test_the_coordinator_reads_the_code_of_a_refused_greeting_and_nothing_else(
    joined, caplog, policy, lock, code
):
    text = join(write_site(joined, policy), lock)
    assert json.loads(text) == {"site": "north", "failed": code}
    assert f"north: {code} " in caplog.text
    assert pinned_lock(joined, "hf") == LOCK


@pytest.mark.parametrize(
    ("policy", "task", "code"),
    [
        ('studies = ["another"]', task_of(LOCK), "FECG-411"),
        (POLICY, task_of(CHANGED), "FECG-416"),
        (f'{POLICY}\nphases = ["evaluate"]', task_of(LOCK), "FECG-417"),
        (out_of_hours(), task_of(LOCK), "FECG-418"),
    ],
)
def test_the_coordinator_reads_the_code_of_a_refused_task_and_nothing_else(
    joined, caplog, policy, task, code
):
    text = said(train(write_site(joined, policy), task))
    assert json.loads(text) == {"site": "north", "failed": code}
    assert f"north: {code} " in caplog.text


def test_the_rounds_of_a_day_hold_through_the_app(joined):
    """There is no signal store: rounds that are let in fail at it, and count."""
    folder = write_site(joined, f"{POLICY}\nrounds-a-day = 1")
    first, again, second = (
        Failure.model_validate_json(said(train(folder, task_of(LOCK, round=round_index)))).failed
        for round_index in (1, 1, 2)
    )
    assert first == again == "FECG-215"
    assert second == "FECG-419"


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("query.survey", task_of(LOCK, SurveyTask, stage="survival")),
        ("evaluate", EVALUATE),
        ("query.explain", task_of(LOCK, ExplainTask, stage="survival", part="test")),
    ],
    ids=["survey", "evaluate", "explain"],
)
def test_every_kind_of_message_passes_the_gate(joined, kind, task):
    text = said(answer(write_site(joined, f'{POLICY}\nphases = ["align"]'), pack(task), kind))
    assert json.loads(text) == {"site": "north", "failed": "FECG-417"}


def test_joining_through_the_app_pins_the_lock(tmp_path):
    reply = JoinReply.model_validate_json(join(write_site(tmp_path), LOCK))
    assert reply.lock_sha256 == pinned_lock(tmp_path, "hf").sha256() == LOCK.sha256()
