"""Nobody takes part unasked: the first lock of a study waits for the site's consent, given before or after it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import gate, join, lock_of, refusal, study, task_of, write_site

from fedecg.config import PolicySettings
from fedecg.errors import FederationError, PolicyError
from fedecg_client.doctor import FIXES
from fedecg_client.gate import Gate
from fedecg_client.overview import joined_studies
from fedecg_client.pinned import accept, agreed_sha256, pinned_lock

LOCK, CHANGED = lock_of(study()), lock_of(study(align={"rounds": 3}))
ASK = 'studies = ["hf"]'  # and nothing more: what `fedecg-client init --study hf` writes


def test_consent_is_asked_for_unless_the_site_says_otherwise() -> None:
    assert PolicySettings().consent == "ask"


def test_the_first_lock_waits_with_its_summary_and_the_operator_is_told_how_to_agree(tmp_path: Path) -> None:
    error = refusal(gate(tmp_path, ASK).admit_study, LOCK)
    assert isinstance(error, FederationError)
    assert str(error) == (
        f"FECG-554 lock of study hf: found sha256 {LOCK.sha256()}; expected one that this site has agreed to."
        " Read it (fedecg-client studies) and compare the hash with the coordinator's (fedecg-server lock); to take"
        f" part run `fedecg-client accept hf {LOCK.sha256()}`: the site then joins within half a minute."
    )
    assert pinned_lock(tmp_path, "hf") is None
    (waiting,) = joined_studies(tmp_path / "state")
    assert (waiting.study, waiting.lock, waiting.proposed, waiting.waits) == ("hf", None, LOCK, True)
    assert not waiting.damaged
    assert refusal(gate(tmp_path, ASK).admit, task_of(LOCK)).code == "FECG-416"


def test_after_consent_the_study_is_joined_and_no_other_lock(tmp_path: Path) -> None:
    refusal(gate(tmp_path, ASK).admit_study, LOCK)
    assert accept(tmp_path, "hf", LOCK.sha256()) == LOCK
    gate(tmp_path, ASK).admit_study(LOCK)
    gate(tmp_path, ASK).admit(task_of(LOCK))
    assert refusal(gate(tmp_path, ASK).admit_study, CHANGED).code == "FECG-413"


def test_consent_may_be_given_before_the_study_has_come(tmp_path: Path) -> None:
    write_site(tmp_path, ASK)
    assert accept(tmp_path, "hf", LOCK.sha256()) is None
    assert agreed_sha256(tmp_path, "hf") == LOCK.sha256()
    (agreed,) = joined_studies(tmp_path / "state")
    assert (agreed.agreed, agreed.waits) == (LOCK.sha256(), False)
    gate(tmp_path, ASK).admit_study(LOCK)
    assert pinned_lock(tmp_path, "hf") == LOCK
    assert agreed_sha256(tmp_path, "hf") is None  # it has been used
    assert accept(tmp_path, "hf", LOCK.sha256()) == LOCK  # said again, it changes nothing
    assert agreed_sha256(tmp_path, "hf") is None


def test_another_lock_than_the_one_agreed_to_waits_and_both_hashes_are_told(tmp_path: Path) -> None:
    write_site(tmp_path, ASK)
    accept(tmp_path, "hf", LOCK.sha256())
    error = refusal(gate(tmp_path, ASK).admit_study, CHANGED)
    assert error.code == "FECG-554"
    assert f"found sha256 {CHANGED.sha256()}; expected {LOCK.sha256()}, which this site agreed to" in str(
        error
    )
    assert isinstance(refusal(accept, tmp_path, "hf", LOCK.sha256()), PolicyError)
    gate(tmp_path, ASK).admit_study(LOCK)  # the coordinator has mended its study
    assert pinned_lock(tmp_path, "hf") == LOCK


def test_a_change_may_be_agreed_to_before_it_comes(tmp_path: Path) -> None:
    accept(write_site(tmp_path, ASK), "hf", LOCK.sha256())
    gate(tmp_path, ASK).admit_study(LOCK)
    assert accept(tmp_path, "hf", CHANGED.sha256()) is None
    gate(tmp_path, ASK).admit_study(LOCK)  # the run goes on with what it began with
    gate(tmp_path, ASK).admit_study(CHANGED)
    assert pinned_lock(tmp_path, "hf") == CHANGED


@pytest.mark.parametrize("back", [lambda at: at.admit_study(LOCK), lambda at: at.admit(task_of(LOCK))])
def test_a_lock_that_came_once_waits_no_longer_when_the_agreed_study_goes_on(
    tmp_path: Path, back: Callable[[Gate], None]
) -> None:
    accept(write_site(tmp_path, ASK), "hf", LOCK.sha256())
    gate(tmp_path, ASK).admit_study(LOCK)
    assert refusal(gate(tmp_path, ASK).admit_study, CHANGED).code == "FECG-413"  # a restored backup, a trial
    (entry,) = joined_studies(tmp_path / "state")
    assert entry.waits
    back(gate(tmp_path, ASK))
    (entry,) = joined_studies(tmp_path / "state")
    assert (entry.lock, entry.proposed, entry.waits) == (LOCK, None, False)
    assert accept(tmp_path, "hf", CHANGED.sha256()) is None  # it is agreed to in advance, and the run goes on
    gate(tmp_path, ASK).admit(task_of(LOCK))


def test_a_task_of_the_other_lock_leaves_the_one_that_waits(tmp_path: Path) -> None:
    accept(write_site(tmp_path, ASK), "hf", LOCK.sha256())
    gate(tmp_path, ASK).admit_study(LOCK)
    refusal(gate(tmp_path, ASK).admit_study, CHANGED)
    assert refusal(gate(tmp_path, ASK).admit, task_of(CHANGED)).code == "FECG-416"
    (entry,) = joined_studies(tmp_path / "state")
    assert entry.proposed == CHANGED


@pytest.mark.parametrize(
    "policy",
    [f'{ASK}\nlocks = {{ hf = "{LOCK.sha256()}" }}', f'{ASK}\nconsent = "first"'],
    ids=["named by its hash", "first"],
)
def test_a_policy_can_agree(tmp_path: Path, policy: str) -> None:
    gate(tmp_path, policy).admit_study(LOCK)
    assert pinned_lock(tmp_path, "hf") == LOCK
    assert refusal(gate(tmp_path, f'{ASK}\nconsent = "first"').admit_study, CHANGED).code == "FECG-413"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 64, b"nonsense"])
def test_a_damaged_word_of_consent_is_none(tmp_path: Path, content: bytes) -> None:
    write_site(tmp_path, ASK)
    (tmp_path / "state/locks").mkdir(parents=True)
    (tmp_path / "state/locks/hf.agreed").write_bytes(content)
    assert refusal(gate(tmp_path, ASK).admit_study, LOCK).code == "FECG-554"


def test_the_coordinator_hears_the_code_alone_and_the_site_why(tmp_path: Path) -> None:
    folder = write_site(tmp_path, ASK)
    (folder / "state").mkdir(mode=0o700)
    assert json.loads(join(folder, LOCK)) == {"site": "north", "failed": "FECG-554"}
    assert '"code": "FECG-554"' in (folder / "state/events.jsonl").read_text()
    assert "fedecg-client accept STUDY SHA256" in FIXES["FECG-554"]
    accept(folder, "hf", LOCK.sha256())
    assert json.loads(join(folder, LOCK))["lock-sha256"] == LOCK.sha256()
