"""A server that asks two questions under the masks of one sum: pair masks would cancel in what each site sends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from masked_study import NAMES, Make, WatchedGrid, plain_surveys

from fedecg.federation.masked import (
    MaskedReply,
    UnmaskReply,
    UnmaskTask,
    as_bytes,
    parted_vector,
    parted_words,
    told,
)
from fedecg.federation.masking_terms import Masking
from fedecg.federation.messages import document_of, pack, read_reply
from fedecg.federation.tasks import SurveyTask
from fedecg.privacy.masking import Words, _stream
from fedecg.privacy.sharing import rejoin
from fedecg_client import masks
from fedecg_server.study import Study

Weights = np.ndarray


def asked(study: Study, grid: WatchedGrid, kind: str, site: str, content: object) -> Message:
    (identity,) = grid.push_messages([Message(content, study.consortium.members[site].node, kind)])  # type: ignore[arg-type]
    (reply,) = grid.pull_messages([identity])
    return reply


def question(study: Study, number: str = "ab" * 16) -> SurveyTask:
    assert study.masked is not None
    masking = Masking(number=number, keys=study.masked.keys)
    return SurveyTask(**study.consortium.task_fields("survival", 0), masking=masking)


def two_weights(study: Study) -> tuple[Weights, Weights]:
    weights = study._vector("survival")
    return weights, weights * np.float32(0.5)


def without_own_mask(study: Study, grid: WatchedGrid, task: SurveyTask, weights: Weights) -> Words:
    """What a server has of city alone, once every site has opened the sum of all five."""
    replies = {
        site: read_reply(asked(study, grid, "query.survey", site, pack(task, weights)), MaskedReply)
        for site in NAMES
    }
    openings: dict[str, UnmaskReply] = {}
    for site in NAMES:
        bundles = {name: reply.bundles[site] for name, (reply, _) in replies.items()}
        fields = {name: getattr(task, name) for name in SurveyTask.model_fields}
        opening = UnmaskTask(**fields, answered=NAMES, bundles=bundles)
        openings[site] = read_reply(asked(study, grid, "query.unmask", site, pack(opening)), UnmaskReply)[0]
    assert task.masking is not None
    circle, (reply, vector) = task.masking.circle(), replies["city"]
    shares = {circle.place(site): as_bytes(one.own["city"]) for site, one in openings.items()}
    words = parted_vector(vector, reply.layout)
    return words.plus(_stream(rejoin(shares, circle.threshold), words), -1)


def plain_words(study: Make, weights: Weights) -> np.ndarray:
    """Of city's survey, without the patients of its parts, which are the same in both."""
    reply = plain_surveys(study, weights)["city"]
    return parted_words(told(reply, {}, None))[2]


def test_who_could_use_masks_twice_would_learn_one_sites_numbers(
    study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next test forbids: the difference of two answers of city, to the last bit."""
    monkeypatch.setattr(masks, "_mask_once", lambda *_: None)
    made, grid = study()
    made.join()
    first, second = two_weights(made)
    task = question(made)
    one, other = (without_own_mask(made, grid, task, weights) for weights in (first, second))
    stolen = one.plus(other, -1).sums
    assert np.array_equal(stolen, plain_words(study, first) - plain_words(study, second))
    assert stolen.any()


def test_a_site_puts_no_other_numbers_under_masks_that_it_has_used(
    study: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made, grid = study()
    made.join()
    first, second = two_weights(made)
    task = question(made)
    without_own_mask(made, grid, task, first)
    for site in NAMES:
        refused = asked(made, grid, "query.survey", site, pack(task, second))
        assert document_of(refused.content) == {"site": site, "failed": "FECG-456"}
    assert (
        "FECG-456 sum that is to be masked: found other numbers than those that went under its masks"
        in caplog.text
    )
    again = asked(made, grid, "query.survey", "city", pack(task, first))
    assert read_reply(again, MaskedReply)[0].site == "city"  # a reply that was lost on its way is made again
    other = question(made, "cd" * 16)
    fresh = asked(made, grid, "query.survey", "city", pack(other, second))
    assert read_reply(fresh, MaskedReply)[0].site == "city"


def test_a_new_run_of_a_study_leaves_the_keys_of_another_of_a_longer_name(study: Make, folder: Path) -> None:
    """hf is not hf-two, though it begins like it."""
    kept = folder / "city" / "masks" / "study-two-00c0ffee.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("{}")
    made, _ = study()
    assert made.settings.name == "study"
    made.join()
    assert kept.exists()
    kept.unlink()
