"""The coordinator's part under differential privacy: baselines from noised sums, checks of replies, spends by phase."""

import numpy as np
import pytest

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.noised import (
    NoisedEvaluateReply,
    NoisedSurveyReply,
    check_evaluation,
    check_survey,
    check_train,
    evaluate_spends,
    hazard_is_due,
    noised_edges,
    refuse_more_than_noise,
    survey_spends,
    train_spends,
)
from fedecg.federation.noised_hazard import NoisedHazard, shipped_sums
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.spent import Budget, NoisedSums, SpendDocument, site_entry
from fedecg.federation.tasks import TrainReply
from fedecg.objectives import breslow
from fedecg.privacy.accountant import Noise, Plan, epsilon_of

NOISE = Noise(1.2, 0.5, 0.4, 0.3)
HEAD = LedgerHead(sequence=3, sha256="a" * 64)
BINS = 8


def study_of(**sections) -> StudySettings:
    tree = {
        "privacy": {"mode": "sample", "sums": "noised", "hazard-every": 2},
        "survival": {"rounds": 5, "horizon-days": 3500.0},
        "evaluation": {"explain": False},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    return StudySettings.model_validate(tree)


def documents(spends) -> list[SpendDocument]:
    return [SpendDocument.of(spend) for spend in spends]


def surveyed(events: list[float], sums: list[float], site: str = "a") -> NoisedSurveyReply:
    return NoisedSurveyReply(
        site=site,
        train_events=events,
        train_exp_sums=sums,
        spends=documents(survey_spends(NOISE)),
        ledger=HEAD,
    )


def trained(settings: StudySettings, number: int, sums: list[float] | None, **changes) -> TrainReply:
    told = {
        "site": "a",
        "round": number,
        "patients": 0,
        "events": 0,
        "steps": 0,
        "loss": None,
        "code_fingerprint": "c",
        "noised": NoisedSums(
            spends=documents(train_spends(settings, "survival", number, NOISE)), train_exp_sums=sums
        ),
        "ledger": HEAD,
    }
    return TrainReply(**{**told, **changes})


EVENTS = [30.0, 25.0, 20.0, 15.0, 10.0, 8.0, 5.0, 1.0]
SUMS = [20.0, 20.0, 20.0, 15.0, 15.0, 15.0, 10.0, 5.0]  # in units of hazard-clip


def test_hazard_sums_are_due_as_often_as_the_plan_counts_them() -> None:
    for rounds in range(1, 20):
        for every in (1, 2, 3, 4, 7):
            settings = study_of(survival={"rounds": rounds}, privacy={"hazard-every": every})
            due = 1 + sum(hazard_is_due(settings, number) for number in range(1, rounds + 1))
            assert due == Plan.of(settings).hazard_releases


def test_all_that_a_study_releases_is_what_its_plan_counts() -> None:
    settings = study_of()
    stages = (("align", settings.align.rounds), ("survival", settings.survival.rounds))
    spends = [
        *survey_spends(NOISE),
        *(
            spend
            for stage, rounds in stages
            for number in range(1, rounds + 1)
            for spend in train_spends(settings, stage, number, NOISE)
        ),
        *evaluate_spends(["validation"], NOISE, look=True),
        *evaluate_spends(["validation"], NOISE),
        *evaluate_spends(["test"], NOISE),
    ]

    def totals(some) -> dict[tuple[object, ...], int]:
        found: dict[tuple[object, ...], int] = {}
        for one in some:
            kind = (one.mechanism, one.part, one.noise_multiplier, one.sampling_rate)
            found[kind] = found.get(kind, 0) + one.steps
        return found

    assert totals(spends) == totals(Plan.of(settings).spends(NOISE))


def test_without_noise_to_speak_of_the_baseline_is_breslows() -> None:
    hazard = NoisedHazard(study_of(), {"a": surveyed(EVENTS, SUMS)})
    expected = breslow(np.array(EVENTS).astype(np.int64), 10.0 * np.array(SUMS))
    np.testing.assert_allclose(hazard.cumulative, expected, rtol=1e-9)
    assert hazard.grid.shape[1:] == (8, 2)
    assert 2 <= hazard.grid.shape[0] <= 8


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_noise_the_baseline_is_finite_and_does_not_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = (np.array(EVENTS) / 10 + rng.normal(0, 5, BINS)).tolist()
    if sum(events) <= 0:
        events = [-one for one in events]
    hazard = NoisedHazard(study_of(), {"a": surveyed(events, rng.normal(0, 20, BINS).tolist())})
    assert np.all(np.isfinite(hazard.cumulative))
    assert np.all(np.diff(hazard.cumulative) >= 0)


def test_noise_that_leaves_no_event_is_a_message() -> None:
    with pytest.raises(FederationError, match="FECG-562 training events with noise: found none, of 1"):
        NoisedHazard(study_of(), {"a": surveyed([-1.0] * BINS, SUMS)})


def test_between_releases_the_last_baseline_is_kept_and_no_round_is_repeated() -> None:
    settings = study_of()
    hazard = NoisedHazard(settings, {"a": surveyed(EVENTS, SUMS)})
    before = hazard.cumulative.copy()
    record = RoundRecord("survival", 2, ["a"])
    assert hazard.digest(record, {"a": trained(settings, 2, None)})
    np.testing.assert_array_equal(hazard.cumulative, before)
    assert record.hazard_ratio is None
    assert record.validation is None
    record = RoundRecord("survival", 3, ["a"])
    assert hazard.digest(record, {"a": trained(settings, 3, [100 * one for one in SUMS])})
    assert record.hazard_ratio == pytest.approx(100, rel=1e-6)  # far outside [1/3, 3]: not repeated
    # 100 times the sums of hazards: the fresh baseline is a hundredth, and gets back the level that there was.
    np.testing.assert_allclose(hazard.cumulative, before, rtol=1e-6)


def test_only_sites_that_released_sums_make_the_fresh_baseline() -> None:
    settings = study_of()
    both = {"a": surveyed(EVENTS, SUMS), "b": surveyed([3 * one for one in EVENTS], SUMS, "b")}
    hazard = NoisedHazard(settings, both)
    hazard.digest(RoundRecord("survival", 3, ["a", "b"]), {"a": trained(settings, 3, SUMS)})
    alone = NoisedHazard(settings, {"a": both["a"]})
    np.testing.assert_allclose(
        np.diff(hazard.cumulative) / hazard.cumulative[0], np.diff(alone.cumulative) / alone.cumulative[0]
    )


def test_with_baselines_of_their_own_each_site_gets_that_of_its_own_noised_sums() -> None:
    settings = study_of(survival={"baseline": "site"})
    both = {"a": surveyed(EVENTS, SUMS), "b": surveyed([2 * one for one in EVENTS], SUMS, "b")}
    own = NoisedHazard(settings, both).own_documents()
    np.testing.assert_allclose(own["b"].cumulative, 2 * np.array(own["a"].cumulative))
    assert NoisedHazard(study_of(), both).own_documents() == {}


def test_cuts_of_a_histogram_follow_from_all_that_noised_ones_have_shown_before() -> None:
    hazard = NoisedHazard(study_of(), {"a": surveyed(EVENTS, SUMS)})
    risk = np.random.default_rng(1).normal(-3.2, 0.15, 2000)  # beside every public cut of a standard normal
    spends = documents(evaluate_spends(["validation"], NOISE, look=True))
    errors = []
    for grid in (hazard.look, None):
        asked = grid or hazard.grid
        cells = np.zeros(asked.shape)
        np.add.at(cells, (0, np.searchsorted(asked.risk_cuts, risk, side="right"), 0), 1.0)
        reply = NoisedEvaluateReply(site="a", cells={"validation": cells.ravel().tolist()}, spends=spends)
        hazard.cut_where_risks_are(asked, {"a": reply})
        shares = np.diff(np.searchsorted(np.sort(risk), hazard.grid.risk_cuts)) / 2000
        errors.append(np.abs(shares - 1 / 8).max())
    assert hazard.grid.shape[1] == 8
    assert errors[0] < 0.15
    assert errors[1] < 0.03


def test_a_look_is_one_histogram_of_as_many_cells_and_nothing_else() -> None:
    settings = study_of()
    shape = NoisedHazard(settings, {"a": surveyed(EVENTS, SUMS)}).look.shape
    assert shape == (1, 64, 2)
    look = NoisedEvaluateReply(
        site="a",
        cells={"validation": [0.5] * 128},
        spends=documents(evaluate_spends(["validation"], NOISE, look=True)),
    )
    check_evaluation(settings, shape, ["validation"], "a", look, look=True)
    more = look.model_copy(update={"validation_events": EVENTS})
    with pytest.raises(FederationError, match="FECG-503 noised validation sums of a"):
        check_evaluation(settings, shape, ["validation"], "a", more, look=True)
    dearer = look.model_copy(update={"spends": documents(evaluate_spends(["validation"], NOISE))})
    with pytest.raises(FederationError, match=r"FECG-561 .*the 1 of the study"):
        check_evaluation(settings, shape, ["validation"], "a", dearer, look=True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"patients": 3}, "FECG-561"),
        ({"loss": 0.25}, "FECG-561"),
        ({"steps": 2}, "FECG-561"),
        ({"noised": None}, "FECG-503"),
        ({"noised": NoisedSums(spends=[], train_exp_sums=None)}, "FECG-561"),
    ],
)
def test_a_reply_that_says_more_or_less_than_the_four_kinds_is_refused(changes, code: str) -> None:
    settings = study_of()
    check_train(settings, "a", trained(settings, 2, None), "survival")
    with pytest.raises(FederationError, match=f"{code} .*reply of a"):
        check_train(settings, "a", trained(settings, 2, None, **changes), "survival")


def test_hazard_sums_out_of_turn_missing_or_of_another_length_are_refused() -> None:
    settings = study_of()
    check_train(settings, "a", trained(settings, 3, SUMS), "survival")
    for number, sums, code in ((2, SUMS, "FECG-561"), (3, None, "FECG-561"), (3, SUMS[:-1], "FECG-503")):
        with pytest.raises(FederationError, match=code):
            check_train(settings, "a", trained(settings, number, sums), "survival")


def test_a_study_without_privacy_takes_no_noised_sums() -> None:
    settings = study_of(privacy={"mode": "none", "sums": "plain"})
    with pytest.raises(FederationError, match='FECG-561 .*expected privacy.mode = "sample"'):
        check_train(settings, "a", trained(study_of(), 2, None), "survival")
    refuse_more_than_noise(study_of(privacy={"mode": "none", "sums": "plain"}, evaluation={"explain": True}))


def test_surveys_and_evaluations_are_held_to_their_shapes_and_prices() -> None:
    settings, shape = study_of(), (8, 8, 2)
    check_survey(settings, "a", surveyed(EVENTS, SUMS))
    with pytest.raises(FederationError, match=r"FECG-503 noised events of a: found 7 numbers; expected 8"):
        check_survey(settings, "a", surveyed(EVENTS[:-1], SUMS))
    with pytest.raises(FederationError, match=r"FECG-561 .*the 2 of the study"):
        check_survey(settings, "a", surveyed(EVENTS, SUMS).model_copy(update={"spends": []}))
    test = NoisedEvaluateReply(
        site="a", cells={"test": [0.5] * 128}, spends=documents(evaluate_spends(["test"], NOISE))
    )
    check_evaluation(settings, shape, ["test"], "a", test)
    more = test.model_copy(update={"validation_events": EVENTS})
    with pytest.raises(FederationError, match="FECG-503 noised validation sums of a"):
        check_evaluation(settings, shape, ["test"], "a", more)
    with pytest.raises(FederationError, match=r"FECG-561 .*histograms of test"):
        check_evaluation(settings, shape, ["validation"], "a", test)


def test_the_shipped_variance_grows_with_the_noise() -> None:
    settings = study_of()

    def variance_at(noise: float) -> float:
        reply = NoisedEvaluateReply(
            site="a",
            cells={"validation": [0.5] * 128},
            validation_events=EVENTS,
            validation_exp_sums=SUMS,
            spends=documents(evaluate_spends(["validation"], Noise(1.0, 1.0, noise, 1.0))),
        )
        baseline, variance = shipped_sums(settings, {"a": reply})
        assert len(variance) == len(noised_edges(settings)) == len(baseline.cumulative_hazard)
        return float(variance[3])

    events, risk = np.array(EVENTS), 10 * np.cumsum(SUMS[::-1])[::-1]
    assert variance_at(1e-6) == pytest.approx(float(np.cumsum(events / risk**2)[3]), rel=0.25)
    assert variance_at(5.0) > 2 * variance_at(1e-6)


def test_a_sites_line_composes_phases_less_than_additively_and_parts_not_at_all() -> None:
    settings = study_of()
    noise = Noise(1.0, 8.0, 8.0, 4.0)
    told = {
        "align": documents(train_spends(settings, "align", 1, noise)),
        "survival": documents(survey_spends(noise)),
        "evaluate": documents([*evaluate_spends(["validation"], noise), *evaluate_spends(["test"], noise)]),
    }
    entry = site_entry("a", Budget(epsilon=4.0, delta=1e-5), told)
    of_test = epsilon_of(evaluate_spends(["test"], noise), 1e-5)
    assert entry["parts"]["test"] == pytest.approx(of_test)
    assert entry["epsilon"] == max(entry["parts"].values())
    assert entry["budget"] == 4.0
    assert entry["parts"]["train"] < entry["phases"]["align"] + entry["phases"]["survival"]
