"""What a site lets in: every rule of its policy on studies and tasks, and what its operator reads."""

import json
import logging
from pathlib import Path

import pytest
from asking import POLICY, full_disk, gate, lock_of, refusal, study, task_of, write_site

from fedecg.config import load_site
from fedecg.errors import FedecgError, FederationError, PolicyError, RunError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.documents import GridDocument
from fedecg.federation.lock import StudyLock
from fedecg.federation.tasks import EvaluateTask, SurveyTask, Task
from fedecg_client.gate import Gate
from fedecg_client.pinned import accept, pinned_lock

LOCK = lock_of(study(evaluation={"baselines": True}))
CHANGED = lock_of(study(align={"rounds": 3}))
GRID = GridDocument(time_cuts_days=[1.0], risk_cuts=[0.0])


def evaluate_task(lock: StudyLock = LOCK, **changes: object) -> EvaluateTask:
    fields = {"stage": "survival", "grid": GRID, "edges_days": [0.0], "parts": ["test"], **changes}
    return task_of(lock, EvaluateTask, **fields)


def test_the_first_lock_is_pinned_with_its_summary_and_the_summary_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "fedecg.client"):
        gate(tmp_path).admit_study(LOCK)
    locks = tmp_path / "state" / "locks"
    assert pinned_lock(tmp_path, "hf") == LOCK
    assert sorted(file.name for file in locks.iterdir()) == ["hf.json", "hf.txt"]
    summary = (locks / "hf.txt").read_text().splitlines()
    assert summary == LOCK.summary()
    assert f"Lock (sha256): {LOCK.sha256()}" in summary
    assert all(line in caplog.text for line in summary)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_the_pinned_lock_joins_again_in_silence(tmp_path, caplog):
    gate(tmp_path).admit_study(LOCK)
    with caplog.at_level(logging.INFO, "fedecg.client"):
        gate(tmp_path).admit_study(StudyLock.model_validate_json(LOCK.model_dump_json(by_alias=True)))
    assert caplog.text == ""


def test_a_study_that_the_policy_does_not_name_is_refused(tmp_path):
    error = refusal(gate(tmp_path).admit_study, lock_of(study("other")))
    assert isinstance(error, PolicyError)
    assert str(error) == (
        "FECG-411 study: found 'other'; expected one of hf (policy.studies)."
        " To take part, name it in [policy] studies of site.toml."
    )
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["../../evil", "hf\nall is well", "x" * 5000])
def test_a_name_made_to_deceive_is_refused_and_does_not_reach_the_disk(tmp_path, name):
    error = refusal(gate(tmp_path).admit_study, lock_of(study(), study=name))
    assert error.code == "FECG-411"
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 300
    assert (
        refusal(gate(tmp_path, 'studies = ["*"]').admit_study, lock_of(study(), study=name)).code
        == "FECG-542"
    )
    assert not (tmp_path / "state").exists()


def test_a_lock_of_two_names_is_refused(tmp_path):
    error = refusal(gate(tmp_path).admit_study, lock_of(study("other"), study="hf"))
    assert isinstance(error, FederationError)
    assert str(error).startswith(
        "FECG-542 lock of a study: found a name that is not that of its settings, or words"
    )
    assert error.fix == "Tell the coordinator."


@pytest.mark.parametrize(
    "changes",
    [{"sites": ["north", "x\nLeaves the site: nothing"]}, {"bank_sha256": "0\x1b[2J"}],
    ids=["a line of its own", "an escape sequence"],
)
def test_a_summary_that_would_not_print_as_it_is_is_refused(tmp_path, changes):
    assert refusal(gate(tmp_path).admit_study, lock_of(study(), **changes)).code == "FECG-542"


def test_settings_of_a_lock_that_cannot_be_are_refused(tmp_path):
    settings = {**LOCK.settings, "align": {"rounds": -1}, "code": "rm -rf /"}
    error = refusal(gate(tmp_path).admit_study, LOCK.model_copy(update={"settings": settings}))
    assert error.code == "FECG-103"
    assert "align.rounds" in str(error)
    assert "code: unknown key" in str(error)


def test_a_lock_that_is_not_the_policys_is_refused(tmp_path):
    policy = f'{POLICY}\nlocks = {{ hf = "{LOCK.sha256()}" }}'
    error = refusal(gate(tmp_path, policy).admit_study, CHANGED)
    assert isinstance(error, PolicyError)
    assert str(error) == (
        f"FECG-412 lock of study hf: found sha256 {CHANGED.sha256()}; expected {LOCK.sha256()} (policy.locks)."
        " Compare with the coordinator; if the study was meant to change, mend policy.locks in site.toml."
    )
    gate(tmp_path, policy).admit_study(LOCK)
    assert pinned_lock(tmp_path, "hf") == LOCK


def test_a_changed_lock_is_refused_and_the_operator_is_told_how_to_accept_it(tmp_path):
    gate(tmp_path).admit_study(LOCK)
    error = refusal(gate(tmp_path).admit_study, CHANGED)
    assert isinstance(error, PolicyError)
    assert str(error) == (
        f"FECG-413 lock of study hf: found sha256 {CHANGED.sha256()};"
        f" expected {LOCK.sha256()}, which this site joined with (state/locks/hf.json)."
        " Read state/locks/hf.proposed.txt and compare the hash with the coordinator; to accept it run"
        f" `fedecg-client accept hf {CHANGED.sha256()}`, or remove state/locks/hf.json."
    )
    assert pinned_lock(tmp_path, "hf") == LOCK
    assert (tmp_path / "state/locks/hf.proposed.txt").read_text().splitlines() == CHANGED.summary()


def test_an_accepted_lock_is_the_pinned_one_and_the_old_one_is_refused(tmp_path):
    gate(tmp_path).admit_study(LOCK)
    refusal(gate(tmp_path).admit_study, CHANGED)
    assert accept(tmp_path, "hf", CHANGED.sha256()) == CHANGED
    gate(tmp_path).admit_study(CHANGED)
    gate(tmp_path).admit(task_of(CHANGED))
    assert sorted(file.name for file in (tmp_path / "state/locks").iterdir()) == ["hf.json", "hf.txt"]
    assert refusal(gate(tmp_path).admit_study, LOCK).code == "FECG-413"


def test_removing_the_pinned_file_accepts_the_next_lock(tmp_path):
    gate(tmp_path).admit_study(LOCK)
    (tmp_path / "state/locks/hf.json").unlink()
    gate(tmp_path).admit_study(CHANGED)
    assert pinned_lock(tmp_path, "hf") == CHANGED


def test_only_the_hash_that_was_proposed_can_be_accepted(tmp_path):
    gate(tmp_path).admit_study(LOCK)
    refusal(gate(tmp_path).admit_study, CHANGED)
    error = refusal(accept, tmp_path, "hf", "0" * 64)
    assert f"found one of sha256 {CHANGED.sha256()} that waits; expected one of sha256 '000" in str(error)
    assert error.fix == (
        "Compare the hash with the coordinator's: fedecg-server lock there, fedecg-client studies here."
    )
    assert pinned_lock(tmp_path, "hf") == LOCK


def test_a_pinned_lock_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    gate(tmp_path).admit_study(LOCK)
    (tmp_path / "state/locks/hf.json").write_text("{")
    error = refusal(gate(tmp_path).admit_study, LOCK)
    assert str(error) == (
        "FECG-413 lock of study 'hf': found hf.json that cannot be read; expected the lock that the site agreed to."
        " Remove the file; the next lock is then agreed to anew (policy.consent)."
    )


def test_a_lock_that_cannot_be_pinned_is_not_joined(tmp_path):
    closed = gate(tmp_path)
    with full_disk():
        error = refusal(closed.admit_study, LOCK)
    assert isinstance(error, RunError)
    assert str(error).startswith("FECG-601 file hf.txt: found file too large")
    assert pinned_lock(tmp_path, "hf") is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "state").symlink_to(tmp_path / "nowhere")
    error = refusal(gate(tmp_path).admit_study, LOCK)
    assert str(error).startswith(
        "FECG-601 folder state of the site: found FileExistsError; expected a folder"
    )
    assert "give the site's folder to the user that runs fedecg" in error.fix


def test_a_study_of_other_sites_is_refused(tmp_path):
    error = refusal(gate(tmp_path).admit_study, lock_of(study(), sites=["east", "west"]))
    assert isinstance(error, PolicyError)
    assert str(error) == (
        "FECG-414 sites of the study: found 2 names, north not among them; expected the name that site.toml gives."
        " Ask the coordinator under which name this site was added, and set `name` in site.toml."
    )


def test_a_study_without_a_list_of_sites_takes_any(tmp_path):
    lock = lock_of(study(), sites=[])
    gate(tmp_path).admit_study(lock)
    assert pinned_lock(tmp_path, "hf") == lock


def test_a_study_of_other_code_is_refused(tmp_path):
    error = refusal(gate(tmp_path).admit_study, lock_of(study(), code_fingerprint="f" * 64))
    assert isinstance(error, FederationError)
    assert str(error).startswith(
        "FECG-541 code of the study: found another fingerprint than that of the installed fedecg; expected "
    )
    assert error.fix == "Install the version that the coordinator runs."


@pytest.mark.parametrize("stage", ["align", "survival"])
def test_more_local_steps_than_the_policy_allows_are_refused(tmp_path, stage):
    lock = lock_of(study(**{stage: {"local-steps": 31}}))
    error = refusal(gate(tmp_path, f"{POLICY}\nmost-local-steps = 30").admit_study, lock)
    assert isinstance(error, PolicyError)
    assert str(error) == (
        "FECG-415 local-steps of the study: found 31 steps a round; expected at most 30 (policy.most-local-steps)."
        " Raise policy.most-local-steps in site.toml if the site has the time for it."
    )
    gate(tmp_path, f"{POLICY}\nmost-local-steps = 31").admit_study(lock)


def test_any_study_is_joined_without_a_trace_where_the_policy_says_so(tmp_path):
    anything = gate(tmp_path, 'studies = ["*"]')
    anything.admit_study(LOCK)
    anything.admit_study(CHANGED)
    anything.admit(task_of(lock_of(study("another"))))
    assert not (tmp_path / "state").exists()


@pytest.fixture
def joined(tmp_path) -> Path:
    gate(tmp_path).admit_study(LOCK)
    return tmp_path


def is_let_in(folder: Path, task: Task) -> bool:
    try:
        gate(folder).admit(task)
    except FedecgError:
        return False
    return True


def test_a_task_of_the_pinned_lock_is_let_in(joined):
    assert is_let_in(joined, task_of(LOCK))


def test_a_task_before_joining_is_refused(tmp_path):
    error = refusal(gate(tmp_path).admit, task_of(LOCK))
    assert isinstance(error, PolicyError)
    assert str(error) == (
        "FECG-416 task of study hf: found a study that this site has not joined; expected the lock that the site"
        " joined with. The coordinator greets every site before it sends tasks; see what it says of this site."
    )


def test_a_task_of_another_lock_is_refused(joined):
    error = refusal(gate(joined).admit, task_of(CHANGED))
    assert error.code == "FECG-416"
    assert "found another lock than the pinned one" in str(error)
    assert not is_let_in(joined, task_of(CHANGED))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": lock_of(study(seed=1)).settings}, {"settings": {"name": "hf"}}, {"bank_sha256": "0" * 64},
        {"space_sha256": "0" * 64}, {"frequencies_sha256": "0" * 64},
    ],
    ids=["seed", "defaults", "bank", "space", "frequencies"],
)  # fmt: skip
def test_a_task_under_the_locks_hash_with_other_contents_is_refused(joined, changes):
    error = refusal(gate(joined).admit, task_of(LOCK, **changes))
    assert str(error) == (
        "FECG-416 task of study hf: found settings or a code bank that are not those of the lock; expected what the"
        " site agreed to. Tell the coordinator: no site should accept this task."
    )


def test_settings_in_another_order_are_the_same(joined):
    assert is_let_in(joined, task_of(LOCK, settings=dict(reversed(LOCK.settings.items()))))


def test_settings_of_a_task_that_cannot_be_are_refused(joined):
    error = refusal(gate(joined).admit, task_of(LOCK, settings={**LOCK.settings, "seed": -1}))
    assert error.code == "FECG-103"


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ('studies = ["another"]', "FECG-411"),
        (f'{POLICY}\nlocks = {{ hf = "{"0" * 64}" }}', "FECG-412"),
        (f"{POLICY}\nmost-local-steps = 1", "FECG-415"),
    ],
)
def test_a_policy_that_was_changed_after_joining_holds_for_the_next_task(joined, policy, code):
    assert refusal(gate(joined, policy).admit, task_of(LOCK)).code == code


def test_a_site_that_was_renamed_or_upgraded_after_joining_refuses_tasks(joined, monkeypatch):
    site = load_site(joined / "site.toml").model_copy(update={"name": "east"})
    assert refusal(Gate(joined, site).admit, task_of(LOCK)).code == "FECG-414"
    monkeypatch.setattr("fedecg_client.gate.code_fingerprint", lambda: "f" * 64)
    assert refusal(gate(joined).admit, task_of(LOCK)).code == "FECG-541"


TASKS = {
    "align": task_of(LOCK),
    "survival": task_of(LOCK, stage="survival"),
    "survey": task_of(LOCK, SurveyTask, stage="survival"),
    "evaluate": evaluate_task(),
    "explain": task_of(LOCK, ExplainTask, stage="survival", part="test"),
    "baselines": task_of(LOCK, BaselinesTask, grid=GRID, part="test"),
}
NEEDS = {**{phase: phase for phase in TASKS}, "survey": "survival"}


FINE = GridDocument(time_cuts_days=[float(day) for day in range(24)], risk_cuts=[0.0])
MANY = GridDocument(time_cuts_days=[1.0], risk_cuts=[number / 50 for number in range(50)])
BEYOND = {
    "a round after the last": task_of(LOCK, round=10**6),
    "another training than agreed": task_of(LOCK, repeat=2),
    "explanations beyond evaluation.explain": task_of(
        LOCK, ExplainTask, stage="survival", part="test", models=3
    ),
    "an evaluation of the training part": evaluate_task(parts=["train"]),
    "a finer evaluation grid": evaluate_task(grid=FINE),
    "a finer baseline hazard": evaluate_task(edges_days=[float(day) for day in range(400)]),
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_task_that_asks_for_more_than_the_lock_says_is_refused(joined, what):
    error = refusal(gate(joined).admit, BEYOND[what])
    assert isinstance(error, PolicyError)
    assert str(error) == (
        f"FECG-420 task of study hf: found {what}; expected what the study's lock says."
        " Tell the coordinator: no site should accept this task."
    )


def test_many_bins_of_risk_make_rows_of_patients_and_are_refused(joined):
    assert refusal(gate(joined).admit, evaluate_task(grid=MANY)).code == "FECG-420"


def test_a_site_trains_alone_only_where_the_study_says_so(tmp_path):
    lock = lock_of(study())
    folder = write_site(tmp_path)
    gate(folder).admit_study(lock)
    asked = task_of(lock, BaselinesTask, grid=GRID, part="test")
    assert refusal(gate(folder).admit, asked).what == "task of study hf"


@pytest.mark.parametrize("phase", TASKS)
def test_a_phase_is_let_in_by_its_own_name_in_the_policy_and_by_no_other(joined, phase):
    needed = NEEDS[phase]
    gate(joined, f'{POLICY}\nphases = ["{needed}"]').admit(TASKS[phase])
    others = [name for name in ("align", "survival", "evaluate", "explain", "baselines") if name != needed]
    error = refusal(gate(joined, f"{POLICY}\nphases = {json.dumps(others)}").admit, TASKS[phase])
    assert isinstance(error, PolicyError)
    assert str(error) == (
        f"FECG-417 phase of the study: found {phase}; expected one of {', '.join(others)} (policy.phases)."
        " To take part in it, name the phase in policy.phases of site.toml."
    )


def test_a_kind_of_task_that_the_gate_does_not_know_is_refused(joined):
    class StealTask(Task):
        """Of a later version."""

    assert refusal(gate(joined).admit, task_of(LOCK, StealTask)).code == "FECG-417"
