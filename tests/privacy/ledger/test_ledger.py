"""What a ledger counts, of one study and of several, and what it refuses because the budget would not last."""

from pathlib import Path

import pytest
from ledgers import DELTA, HAZARD, HISTOGRAM, SURVIVAL, TRAINING, look, refusal, spend, spent

from fedecg.privacy.accountant import Plan, Spend, epsilon_of, planned_noise
from fedecg.privacy.budget import study_noise
from fedecg.privacy.ledger import Purpose, open_ledger


def test_restarts_cost_what_one_run_costs_to_the_last_bit(used):
    assert look(used).sequence == 9
    once = epsilon_of(
        [Spend("training", "train", 2.0, 0.1, 60), Spend("hazard", "train", 6.0, 1.0, 3)], DELTA
    )
    assert spent(used, "1") == spent(used, "2") == pytest.approx(once, abs=1e-9)
    assert spent(used, "3") == pytest.approx(epsilon_of([HISTOGRAM] * 3, DELTA), abs=1e-9)
    assert spent(used, "4") == spent(used) == 0.0


def test_studies_runs_and_parts_add_up_for_whoever_is_in_both_and_for_nobody_else(tmp_path):
    spend(tmp_path, TRAINING, of={"train": ["a", "b"]})
    spend(tmp_path, HAZARD, of={"train": ["b", "c"]}, purpose=Purpose("other", "second", "survival", 7))
    spend(tmp_path, HISTOGRAM, of={"test": ["b"]}, purpose=Purpose("third", "x", "evaluate", 0))
    assert spent(tmp_path, "a") == pytest.approx(epsilon_of([TRAINING], DELTA))
    assert spent(tmp_path, "c") == pytest.approx(epsilon_of([HAZARD], DELTA))
    everything = epsilon_of([TRAINING, HAZARD, HISTOGRAM], DELTA)
    assert spent(tmp_path, "b") == spent(tmp_path, "a", "b", "c") == pytest.approx(everything)


def test_what_is_released_together_counts_for_its_own_part_and_twice_for_whoever_is_in_two(tmp_path):
    head = spend(tmp_path, HAZARD, HISTOGRAM, of={"train": ["a", "b"], "test": ["b", "c"]})
    assert head.sequence == 2
    assert spent(tmp_path, "a") == pytest.approx(epsilon_of([HAZARD], DELTA))
    assert spent(tmp_path, "b") == pytest.approx(epsilon_of([HAZARD, HISTOGRAM], DELTA))


def test_a_release_that_would_pass_the_budget_of_a_single_patient_is_refused_and_not_written(tmp_path):
    spend(tmp_path, TRAINING, of={"train": ["a"]})
    both = epsilon_of([TRAINING, HAZARD], DELTA)
    budget = both - 1e-6
    error = refusal(spend, tmp_path, HAZARD, of={"train": ["a", "b"]}, purpose=SURVIVAL, epsilon=budget)
    assert str(error) == (
        f"FECG-434 privacy budget, survival round 1 of study hf: found an epsilon of {both:.3f} with this release;"
        f" expected at most {budget:g} (privacy.epsilon of site.toml) at delta 1e-05."
        " The budget of these patients is used up; nothing was computed or sent."
    )
    assert look(tmp_path).sequence == 1
    spend(tmp_path, HAZARD, of={"train": ["b"]}, epsilon=budget)
    spend(tmp_path, HAZARD, of={"train": ["a", "b"]}, epsilon=epsilon_of([TRAINING, HAZARD, HAZARD], DELTA))


def test_of_releases_that_do_not_fit_together_none_is_written(tmp_path):
    limit = epsilon_of([HISTOGRAM], DELTA)
    loud = Spend("training", "train", 0.5)
    error = refusal(spend, tmp_path, HISTOGRAM, loud, of={"train": ["a"], "test": ["b"]}, epsilon=limit)
    assert error.code == "FECG-434"
    assert look(tmp_path).sequence == 0


def test_a_release_without_noise_fits_into_no_budget(tmp_path):
    assert refusal(spend, tmp_path, Spend("events", "train", 0.0), epsilon=1e300).code == "FECG-434"
    assert refusal(spend, tmp_path, Spend("events", "train", float("nan")), epsilon=1e300).code == "FECG-434"


# A whole study


PLAN = Plan(steps=40, sampling_rate=1.0, hazard_releases=2, sums_share=0.2)
OF = {"train": ["1", "2"], "validation": ["3"], "test": ["4"]}


def noise_for(folder: Path, run: str, epsilon: float, of: dict[str, list[str]] = OF):
    with open_ledger(folder) as ledger:
        patients = {part: ledger.pseudonyms(names) for part, names in of.items()}
        return study_noise(ledger, PLAN, patients, "hf", run, epsilon, DELTA)


def test_a_study_on_new_patients_gets_the_noise_of_its_plan_and_keeps_it_to_its_end(tmp_path):
    noise = noise_for(tmp_path, "first", 4.0)
    assert noise == planned_noise(PLAN, 4.0, DELTA)
    for release in PLAN.spends(noise):
        spend(tmp_path, release, of=OF, purpose=Purpose("hf", "first", "survival", 1), epsilon=4.0)
        assert noise_for(tmp_path, "first", 4.0) == noise
    one_more = Spend("training", "train", noise.training)
    assert refusal(spend, tmp_path, one_more, of=OF, epsilon=4.0).code == "FECG-434"


def test_a_second_study_gets_what_is_left_and_is_refused_where_that_is_too_little(tmp_path):
    first = noise_for(tmp_path, "first", 4.0)
    spend(tmp_path, *PLAN.spends(first), of=OF, epsilon=4.0)
    error = refusal(noise_for, tmp_path, "second", 4.0)
    assert error.code == "FECG-437"
    assert (
        "study hf: found an epsilon of 4.000 spent on these patients before; expected room for at least 0.4"
        in str(error)
    )
    assert "(planned) within the budget of 4 (privacy.epsilon). Raise privacy.epsilon" in str(error)
    second = noise_for(tmp_path, "second", 6.0)
    spend(tmp_path, *PLAN.spends(second), of=OF, purpose=Purpose("hf", "second", "x", 1), epsilon=6.0)
    assert 5.99 < spent(tmp_path, "1") <= 6.0
    new_but_for_one = {"train": ["5", "2"], "validation": ["6"], "test": ["7"]}
    assert refusal(noise_for, tmp_path, "third", 6.0, new_but_for_one).code == "FECG-437"
    others = {part: [f"new-{name}" for name in names] for part, names in OF.items()}
    assert noise_for(tmp_path, "third", 4.0, others) == first
