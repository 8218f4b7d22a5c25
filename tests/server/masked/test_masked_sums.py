"""Secure sums through the real apps: equal to plain ones, whoever is lost, and nothing of one site for the server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from masked_study import LOST, NAMES, Make, WatchedGrid, plain_surveys, trained
from scipy.stats import chisquare

from fedecg.errors import FederationError
from fedecg.federation.documents import ALL
from fedecg.federation.masked import CensusReply, CensusTask, MaskedReply
from fedecg.federation.messages import document_of, unpack
from fedecg.federation.tasks import SurveyReply, SurveyTask
from fedecg.privacy.fixed_point import update_error
from fedecg_server.study import Study


def read(study: Study, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((study.folder.path / name).read_text())
    return document


def test_a_masked_study_ends_where_the_plain_one_does(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    """Weights within the stated error (a step of Adam may magnify it in the next round), figures equal."""
    one, other = plain[0], masked[0]
    difference = np.abs(one.trained["align"].whole() - other.trained["align"].whole()).max()
    assert difference <= update_error(5, 1.0) * 1.5 + 1e-7  # and one rounding of float32 each
    survival = np.abs(one.trained["survival"].whole() - other.trained["survival"].whole())
    assert np.median(survival) < 1e-7
    assert survival.max() < 2e-3
    assert plain[1]["evaluation"] == masked[1]["evaluation"]
    assert masked[1]["status"] == "completed"


def test_what_is_made_of_sums_is_the_same_and_what_is_made_of_sites_is_not_there(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    one, other = read(plain[0], "assessment.json"), read(masked[0], "assessment.json")
    for part in (
        "concordance",
        "survival",
        "brier",
        "auc",
        "uno",
        "risk-calibration",
        "decision",
        "subgroups",
    ):
        assert same_but_for_rounding(one[part], other[part]), part
    assert list(other["sites"]) == [ALL]
    assert other["log-rank-by-site"]["p-value"] is None
    assert other["log-rank"]["p-value"] == pytest.approx(one["log-rank"]["p-value"])
    assert masked[1]["sites"] == [{"name": name} for name in NAMES]
    joined = plain[1]["sites"]
    for part, counts in masked[1]["parts-of-all-sites"].items():
        assert counts["patients"] == sum(site["parts"][part]["patients"] for site in joined)


def same_but_for_rounding(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_but_for_rounding(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_but_for_rounding, one, other))
    return bool(one == other or (one is not None and one == pytest.approx(other, rel=1e-4, abs=1e-6)))


def test_no_reply_of_a_masked_study_says_anything_of_its_site(
    masked: tuple[Study, dict[str, Any], WatchedGrid],
) -> None:
    """Documents: names, lengths, seals. Vectors: uniform bytes, whatever was asked."""
    kinds: dict[str, int] = {}
    for kind, content in masked[2].seen:
        document = document_of(content)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "query.join":
            assert document["parts"] == {}
        elif kind in ("query.keys", "query.unmask"):
            assert set(document) in ({"site", "entry"}, {"site", "tag", "own", "pairs"})
        else:
            assert set(document) == {"site", "tag", "layout", "same", "bundles", "commitments"}
            for name, value in document["same"].items():
                last = name.rsplit("/", 1)[-1]
                known = {
                    "round": 1,
                    "version": 1,
                    "withheld": False,
                    "code_fingerprint": masked[0].lock.code_fingerprint,
                }
                assert value is None or value == known[last], name
            vector = unpack(content, MaskedReply)[1]
            assert vector is not None
            if vector.nbytes > 5000:
                assert chisquare(np.bincount(vector.view(np.uint8), minlength=256)).pvalue > 1e-6
    assert kinds == {
        "query.join": 5, "query.keys": 5, "query.census": 5, "query.survey": 5, "train": 10, "evaluate": 10,
        "query.assess": 5, "query.unmask": 35,
    }  # fmt: skip


def test_a_masked_round_costs_few_more_bytes(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    for one, other in zip(plain[0].records, masked[0].records, strict=True):
        assert other.bytes <= 1.1 * one.bytes + 5 * 65_536


@pytest.mark.parametrize("phase", ["query.survey", "query.unmask"])
def test_a_site_lost_in_either_message_leaves_the_right_sum_of_the_others(
    study: Make, plain: tuple[Study, dict[str, Any]], phase: str
) -> None:
    made, grid = study()
    made.join()
    grid.lost = {phase: {LOST}}
    start = made._vector("survival")
    asked = SurveyTask(**made.consortium.task_fields("survival", 0))
    assert made.masked is not None
    opened = made.masked.ask("query.survey", asked, start, SurveyReply)
    with_all = phase == "query.unmask"  # its words came; only the shares did not
    answered = [name for name in NAMES if with_all or name != "university"]
    assert sorted(opened.gathered.replies) == answered
    replies = plain_surveys(study, start)
    chosen = [replies[name] for name in answered]
    assert opened.reply.train_events == np.sum([one.train_events for one in chosen], axis=0).tolist()
    np.testing.assert_allclose(
        opened.reply.train_exp_sums, np.sum([one.train_exp_sums for one in chosen], axis=0), atol=1e-10
    )
    assert opened.reply.risk.patients == sum(one.risk.patients for one in chosen)
    joined = {site["name"]: site["parts"] for site in plain[1]["sites"]}
    assert opened.parts["train"].events == sum(joined[name]["train"]["events"] for name in answered)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["query.keys", "query.census", "train", "evaluate"])
def test_a_study_goes_on_without_a_site_that_is_lost(study: Make, phase: str) -> None:
    made, grid = study()
    grid.lost = {phase: {LOST}}
    result = trained(made)
    assert result["status"] == ("completed" if phase == "query.census" else "completed-partial")
    rounds = [record for record in made.records if record.stage == "survival"]
    there = [name for name in NAMES if name != "university" or phase not in ("query.keys", "train")]
    assert rounds[-1].answered == there


def test_a_sum_of_too_few_sites_stays_closed(study: Make) -> None:
    made, grid = study()
    made.join()
    assert made.masked is not None
    census = CensusTask(**made.consortium.task_fields("align", 0))
    grid.lost = {"query.census": {LOST, LOST + 1}}
    with pytest.raises(
        FederationError, match=r"FECG-564 masked sum \(query.census\): found 3 .*at least 4 of 5"
    ):
        made.masked.ask("query.census", census, None, CensusReply)
    grid.lost = {"query.unmask": {LOST, LOST + 1}}
    with pytest.raises(FederationError, match="FECG-564 shares of a mask: found 3; expected at least 4"):
        made.masked.ask("query.census", census, None, CensusReply)
    grid.lost = {}
    assert len(made.masked.ask("query.census", census, None, CensusReply).gathered.replies) == 5
