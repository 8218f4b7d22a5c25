"""The coordinator returns the farthest head of each site's ledger that it saw: over rounds, rejections and restarts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from pydantic import ValidationError

from fedecg.federation.documents import LedgerHead
from fedecg.federation.messages import pack, read_reply, told_head
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.tasks import TrainReply, TrainTask
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder
from fedecg_server.stage import AlignRounds

HEADS = {number: LedgerHead(sequence=number, sha256=f"{number:064x}") for number in (3, 4, 7)}


def telling(*sequence: int, exploding: bool = False):  # type: ignore[no-untyped-def]
    """One site's replies carry these heads, one after the other."""
    heads = iter(sequence)

    def tamper(message: Message) -> Message:
        reply, update = read_reply(message, TrainReply)
        assert update is not None
        told = reply.model_copy(update={"ledger": HEADS[next(heads)]})
        message.content = pack(told, update + np.float32(np.nan if exploding else 0))
        return message

    return tamper


def rounds_of(running):  # type: ignore[no-untyped-def]
    running.join()
    kept: list[RoundRecord] = []
    return AlignRounds(running.settings, running.consortium, kept.append, lambda *_: None), running._vector(
        "align"
    )


def test_the_next_task_returns_the_head_that_a_reply_carried(study) -> None:  # type: ignore[no-untyped-def]
    running = study(telling(3))
    rounds, start = rounds_of(running)
    assert rounds.task(1).ledger == {}
    rounds.run_round(1, start)
    assert rounds.task(2).ledger == {"coast": HEADS[3]}
    document = json.loads(rounds.task(2).model_dump_json(by_alias=True))
    assert document["ledger"] == {"coast": {"sequence": 3, "sha256": HEADS[3].sha256}}
    assert document["run"] == running.run


def test_an_older_head_that_comes_later_is_not_taken(study) -> None:  # type: ignore[no-untyped-def]
    """A kept reply that is sent again carries the head of its time."""
    sites = study().consortium
    reply = TrainReply(site="coast", round=1, patients=1, events=1, steps=1, loss=0.0, code_fingerprint="c")
    seen = []
    for number in (4, 3, 7):
        content = pack(reply.model_copy(update={"ledger": HEADS[number]}))
        sites._note_ledger("coast", Message(content, 1, "train"))
        seen.append(sites.task_fields("align", 1)["ledger"]["coast"].sequence)
    assert seen == [4, 4, 7]


def test_a_site_whose_ledger_does_not_reach_the_head_that_was_seen_is_left_out_by_its_own_refusal(
    study,
) -> None:  # type: ignore[no-untyped-def]
    """The tampered reply tells of a ledger that the real site does not have."""
    rounds, vector = rounds_of(study(telling(4)))
    records: list[RoundRecord] = []
    rounds.keep = records.append
    vector = rounds.run_round(1, vector)
    rounds.consortium.grid._app = client_app
    rounds.run_round(1, vector)
    assert records[1].rejected == {"coast": "FECG-435"}
    assert records[1].answered == ["city", "valley"]


def test_the_head_of_a_reply_that_is_rejected_counts(study) -> None:  # type: ignore[no-untyped-def]
    rounds, start = rounds_of(study(telling(3, exploding=True)))
    rounds.run_round(1, start)
    assert rounds.task(2).ledger == {"coast": HEADS[3]}


def test_a_coordinator_that_was_stopped_remembers_heads_and_run(study, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def resumable(tamper=None):  # type: ignore[no-untyped-def]
        run = study(tamper)
        run.folder = RunFolder(tmp_path / "kept", resumable=True)
        run.journal.folder = run.folder.path
        run.resume_or_begin()
        return run

    first = resumable(telling(3))
    first.join()
    first.align()
    again = resumable()
    assert again.consortium.ledgers == {"coast": HEADS[3]}
    assert again.consortium.run == again.run == first.run


@pytest.mark.parametrize("wrong", [{"sequence": -1}, {"sha256": "x"}, {"sha256": "A" * 64}])
def test_a_head_that_is_none_is_not_read(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError):
        LedgerHead.model_validate(HEADS[3].model_dump() | wrong)


def test_a_message_without_a_head_tells_none() -> None:
    task = TrainTask(lock_sha256="a", stage="align", round=1, bank_sha256="b", settings={})
    assert told_head(pack(task)) is None
