"""Sites that break the protocol of differential privacy on purpose: each is noticed by what every study must keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from planted_sites import Heard, run_planted
from private_studies import EPSILON, entries_of, settings_of, sites_of
from test_private_study import data_of

from fedecg.config import StudySettings
from fedecg.federation.noised import NoisedEvaluateReply, noised_edges
from fedecg.privacy.accountant import Plan, Spend, planned_noise
from fedecg_client import noised

ALLOWED = {
    "train-events",
    "train-exp-sums",
    "noised.train-exp-sums",
    "validation-events",
    "validation-exp-sums",
    "cells.validation",
    "cells.test",
}
Study = tuple[StudySettings, Path, Heard]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def studied(store: Path, folder: Path) -> Study:
    """A study of one survival round."""
    settings = settings_of(store, align={"rounds": 0}, survival={"rounds": 1, "local-steps": 1})
    sites = sites_of(settings, folder / "sites")
    return settings, sites, run_planted(settings, sites, folder / "run")


def only_noised_numbers_leave(study: Study) -> None:
    bins = len(noised_edges(study[0]))
    for _, _, document in study[2].documents:
        for name, values in data_of(document).items():
            assert name in ALLOWED
            assert isinstance(values, list)
            assert all(isinstance(number, float) and number != round(number) for number in values), name
            assert len(values) == bins or (name.startswith("cells") and len(values) <= 8 * 8 * 2)


def the_ledger_holds_the_plan(study: Study) -> None:
    settings, sites, _ = study
    plan = Plan.of(settings)
    planned = plan.spends(planned_noise(plan, EPSILON, 1e-5))
    for folder in sorted(file.parent for file in sites.glob("*/site.toml")):
        spent: Counter[tuple[str, str]] = Counter()
        for entry in entries_of(folder):
            spent[(entry.spend.mechanism, entry.spend.part)] += entry.spend.steps
        assert spent == {(one.mechanism, one.part): one.steps for one in planned if one.steps}


def test_a_study_as_it_is_sends_noised_numbers_alone_and_forgets_no_release(
    store: Path, tmp_path: Path
) -> None:
    study = studied(store, tmp_path)
    sent = {name for *_, document in study[2].documents for name in data_of(document)}
    assert sent == ALLOWED - {"noised.train-exp-sums"}  # which is due every second round
    assert not study[2].ended
    only_noised_numbers_leave(study)
    the_ledger_holds_the_plan(study)


class TellingReply(NoisedEvaluateReply):
    """A reply with pair counts beside the noised cells."""

    concordant: int = 1213
    discordant: int = 377


def test_pair_counts_that_are_sent_are_noticed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noised, "NoisedEvaluateReply", TellingReply)
    study = studied(store, tmp_path)
    assert any("concordant" in document for *_, document in study[2].documents)
    assert study[2].ended == "FECG-507"  # the coordinator takes no such reply either
    with pytest.raises(AssertionError):
        only_noised_numbers_leave(study)


def test_a_release_that_is_forgotten_is_noticed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = noised.spend_here

    def without_hazard_sums(
        folder: Path, site: Any, purpose: Any, spends: Sequence[Spend], *rest: Any
    ) -> Any:
        return right(folder, site, purpose, [one for one in spends if one.mechanism != "hazard"], *rest)

    monkeypatch.setattr(noised, "spend_here", without_hazard_sums)
    study = studied(store, tmp_path)
    with pytest.raises(AssertionError):
        the_ledger_holds_the_plan(study)
