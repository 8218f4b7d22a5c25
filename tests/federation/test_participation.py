"""Who takes part in a round: a fraction drawn by the seed, the same on every machine and in every repetition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.config import FederationSettings, StudySettings, parse_settings
from fedecg.errors import SettingsError
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.federation.participation import taking_part
from fedecg.federation.rounds import RoundRecord, alignment_notes

NAMES = [f"site-{number:04d}" for number in range(1000)]


def drawn(
    fraction: float, names: list[str] = NAMES, *, seed: int = 0, number: int = 1, quorum: int = 1
) -> list[str]:
    return taking_part(names, FederationSettings(fraction=fraction, quorum=quorum), seed, "align", number)


def test_all_take_part_unless_a_fraction_is_asked_for() -> None:
    assert drawn(1.0) == NAMES


@given(
    st.floats(0.001, 0.999),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 2**31 - 1),
    st.integers(1, 99),
)
def test_as_many_as_the_fraction_rounded_up_or_the_quorum(
    fraction: float, sites: int, quorum: int, seed: int, number: int
) -> None:
    names = NAMES[:sites]
    chosen = drawn(fraction, names, seed=seed, number=number, quorum=quorum)
    assert len(chosen) == min(sites, max(int(np.ceil(fraction * sites - 1e-9)), quorum))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(names)
    assert chosen == drawn(fraction, names[::-1], seed=seed, number=number, quorum=quorum)


def test_a_tenth_of_a_thousand_is_a_hundred() -> None:
    assert len(drawn(0.1)) == 100
    assert len(drawn(0.3)) == 300


def test_seed_stage_and_round_draw_others() -> None:
    settings = FederationSettings(fraction=0.1)
    draws = [
        drawn(0.1), drawn(0.1, seed=1), drawn(0.1, number=2), taking_part(NAMES, settings, 0, "survival", 1),
        taking_part(NAMES, settings, 0, "survival, seed 1", 1),
    ]  # fmt: skip
    assert len({tuple(draw) for draw in draws}) == len(draws)
    assert len(set(draws[0]) & set(draws[2])) < 30


def test_every_site_has_its_turn_about_equally_often() -> None:
    times = dict.fromkeys(NAMES, 0)
    for number in range(1, 301):
        for name in drawn(0.1, number=number):
            times[name] += 1
    counts = np.array(list(times.values()))
    assert counts.mean() == 30
    assert counts.var() == pytest.approx(300 * 0.1 * 0.9, rel=0.2)  # binomial
    assert counts.min() > 8


def test_a_site_that_goes_changes_the_place_of_no_other() -> None:
    before = drawn(0.1)
    gone = before[3]
    after = drawn(0.1, [name for name in NAMES if name != gone])
    assert set(before) - {gone} <= set(after)


def test_of_very_many_sites_the_first_are_named_and_the_rest_counted() -> None:
    figures = {name: {"stated": 0, "records": 9, "rank": 1.0, "target-rank": 9.0} for name in NAMES[:40]}
    lines = alignment_notes(RoundRecord("align", 1, NAMES[:40], NAMES[:40], alignment=figures))
    assert len(lines) == 2
    for line in lines:
        assert "site-0009 and 30 more" in line
        assert "site-0010" not in line


def test_the_lock_says_how_many_are_drawn_and_holds_it() -> None:
    def lock(tree: dict[str, object]) -> StudyLock:
        study = parse_settings(StudySettings, {"federation": tree})
        hashes = dict.fromkeys(("bank_sha256", "code_fingerprint"), "0" * 64)
        return StudyLock(study="study", settings=settings_document(study), **hashes)

    part, whole = lock({"fraction": 0.25}), lock({})
    assert any("25% of the sites are drawn for each round" in line for line in part.summary())
    assert not any("drawn for each round" in line for line in whole.summary())
    assert part.sha256() != whole.sha256()
    assert lock({"ray-gpus": 0.5, "ray-cpus": 2.0, "backend": "ray"}).sha256() == whole.sha256()


@pytest.mark.parametrize("privacy", [{"sums": "masked"}, {"mode": "sample", "sums": "noised"}])
def test_masked_and_noised_sums_need_all_sites(privacy: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match="FECG-103(?s:.)*expected federation.fraction = 1 with privacy.mode"
    ):
        parse_settings(StudySettings, {"federation": {"fraction": 0.5}, "privacy": privacy})
