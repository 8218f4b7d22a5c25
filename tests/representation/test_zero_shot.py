"""Zero-shot and retrieval: by hand, collapsed, left out, federated beside pooled."""

import numpy as np
import pytest
from planted import BANK, FINDINGS, planted_site, weights_of

from fedecg.representation.records import SiteEmbeddings, merged
from fedecg.representation.zero_shot import retrieve, zero_shot


def by_hand(codes: list[dict[str, float]], projected: np.ndarray, name: str = "site") -> SiteEmbeddings:
    count = len(codes)
    return SiteEmbeddings(
        name, np.arange(count), np.full(count, "test"), tuple(codes), np.zeros((count, 2)), projected
    )


def statement(code: str) -> np.ndarray:
    return BANK.vectors[BANK.codes.index(code)].astype(np.float64)


@pytest.fixture(scope="module")
def sites() -> list[SiteEmbeddings]:
    return [planted_site("north", 300, 1), planted_site("south", 90, 2)]


def test_ecgs_that_point_at_their_statements_are_found(sites: list[SiteEmbeddings]) -> None:
    found = zero_shot(sites, BANK, weights_of(sites))
    assert found.left_out is None
    by_name = {one.name: one.auc for one in found.seen.shown}
    assert set(by_name) == {*FINDINGS, "SR", "AFIB"}
    assert all(by_name[code] > 0.99 for code in FINDINGS)
    assert 0.3 < by_name["AFIB"] < 0.7  # nothing was planted


def test_counts_of_the_sites_bound_the_pooled_figure(sites: list[SiteEmbeddings]) -> None:
    found = zero_shot(sites, BANK, weights_of(sites)).seen
    assert found.lower <= found.pooled <= found.upper
    assert all(one.lower <= one.auc <= one.upper for one in found.shown)


def test_codes_left_out_of_alignment_have_a_figure_of_their_own(sites: list[SiteEmbeddings]) -> None:
    found = zero_shot(sites, BANK, weights_of(sites), left_out=("IMI", "AFIB"))
    assert {one.name for one in found.left_out.shown} == {"IMI", "AFIB"}
    assert {one.name for one in found.seen.shown} == {"NORM", "CLBBB", "LVH", "SR"}


def test_retrieval_by_hand() -> None:
    codes = [{"AFIB": 0.0}, {"LVH": 100.0}, {"LVH": 100.0, "AFIB": 0.0}]
    site = by_hand(codes, np.stack([statement("AFIB"), statement("AFIB"), statement("LVH")]))
    found = retrieve([site], BANK, weights_of([site]))
    first = found.to_statement[0]
    assert (found.ecgs, first.depth, first.recall) == (3, 1, pytest.approx(2 / 3))
    # AFIB: two ECGs at the top, of which one states it: its best rank lies between 1 and 2; LVH: first.
    assert (found.statements, found.to_ecg[0].recall) == (2, pytest.approx(0.5))
    assert found.to_ecg[1].recall == 1.0
    assert found.to_ecg[0].guess == pytest.approx(2 / 3)  # two of three ECGs state either code


def test_a_collapsed_model_is_no_better_than_not_looking() -> None:
    good = planted_site("north", 400, 3)
    same = np.repeat(statement("PVC")[None], 400, axis=0)
    collapsed = SiteEmbeddings("north", good.patient, good.part, good.codes, good.embedding, same)
    found, lost = (retrieve([site], BANK, weights_of([site])) for site in (good, collapsed))
    assert found.to_statement[1].recall > 0.9 > 0.3 > lost.to_statement[0].recall
    assert lost.to_ecg[0].recall <= lost.to_ecg[0].guess
    assert zero_shot([collapsed], BANK, weights_of([collapsed])).seen.pooled == 0.5


def test_the_usual_codes_of_the_training_part_are_what_not_looking_finds() -> None:
    site = planted_site("north", 300, 4)
    test = site.part == "test"
    found = retrieve([site], BANK, weights_of([site]))
    usual = np.mean(["SR" in stated for stated, kept in zip(site.codes, test, strict=True) if kept])
    assert found.to_statement[0].guess == pytest.approx(usual)


def test_hits_of_the_sites_add_up_to_those_of_the_pooled_records(sites: list[SiteEmbeddings]) -> None:
    whole = merged(sites)
    federated, pooled = (retrieve(one, BANK, weights_of(one)) for one in (sites, [whole]))
    assert federated.ecgs == pooled.ecgs
    for mine, theirs in zip(federated.to_statement, pooled.to_statement, strict=True):
        assert mine.recall == pytest.approx(theirs.recall, abs=1e-12)
        assert mine.low <= mine.recall <= mine.high


def test_without_test_ecgs_there_is_no_recall() -> None:
    nobody = by_hand([{}], statement("AFIB")[None])
    found = retrieve([nobody], BANK, weights_of([nobody]))
    assert (found.ecgs, found.statements) == (0, 0)
    assert np.isnan([found.to_statement[0].recall, found.to_ecg[0].recall]).all()
