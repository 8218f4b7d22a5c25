"""What the coordinator says of a reply that it left out, and when it says that it waits: `Journal` and `Consortium`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fedecg.federation.messages import pack, read_reply
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.tasks import TrainReply
from fedecg_server.journal import Journal
from fedecg_server.stage import AlignRounds

SITES = ("city", "coast")


def test_a_reply_left_out_is_told_until_the_site_has_answered_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.mark("city", "rejected", "FECG-545")
    assert journal.left_out == {"city": "FECG-545"}
    journal.mark("city", "working")
    assert journal.left_out == {"city": "FECG-545"}  # it may have been told in vain: its line may be cut
    journal.mark("city", "answered", seconds=1.0)
    assert journal.left_out == {}


@pytest.mark.parametrize(
    "code", ["FECG-418", "FECG-508", "FECG-541", "FECG-554", "FECG-599", "FECG-601", "FECG-222"]
)
def test_a_site_is_not_told_what_it_has_said_itself(tmp_path: Path, code: str) -> None:
    journal = Journal(tmp_path)
    journal.mark("city", "rejected", code)
    assert journal.left_out == {}


def test_a_study_that_was_resumed_still_tells_what_its_last_round_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    rounds = [
        RoundRecord("align", 1, list(SITES), ["city"], rejected={"coast": "FECG-505"}),
        RoundRecord("align", 2, list(SITES), ["coast"], rejected={"city": "FECG-545"}),
    ]
    journal.resume(rounds)
    assert journal.left_out == {"city": "FECG-545"}
    Journal(tmp_path).resume([])


def test_the_next_task_of_a_round_names_who_was_left_out_and_why(study) -> None:  # type: ignore[no-untyped-def]
    def exploding(message: Message) -> Message:
        reply, update = read_reply(message, TrainReply)
        assert update is not None
        message.content = pack(reply, update + np.float32(1e6))
        return message

    running = study(exploding)
    running.join()
    kept: list[RoundRecord] = []
    rounds = AlignRounds(running.settings, running.consortium, kept.append, lambda *_: None)
    start = running._vector("align")
    assert rounds.task(1).rejected == {}
    rounds.run_round(1, start)
    left_out = {"coast": "FECG-545"}
    assert kept[0].rejected == left_out
    assert rounds.task(2).rejected == left_out
    assert json.loads(rounds.task(2).model_dump_json(by_alias=True))["rejected"] == left_out
