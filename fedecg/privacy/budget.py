"""Whether a whole study fits into what a site's patients have left, and the noise with which it does.

In:  an open ledger, the study's plan, the patients by part, epsilon and delta of site.toml. Out: noise multipliers.
Called by the client when it joins a study, and before every release, with the same result as long as no other study
spends in between.

What is left after earlier studies and runs is for this one, all of it: a site that wants to keep something for later
studies states a smaller epsilon now and raises it then.
"""

from __future__ import annotations

from fedecg.errors import PolicyError
from fedecg.privacy.accountant import Noise, Part, Plan, epsilon_of, planned_noise
from fedecg.privacy.ledger import History, Ledger, Patients, Purpose

__all__ = ["LEAST_SHARE", "study_noise"]

LEAST_SHARE = 0.1  # of epsilon: with less there is so much noise that a site would only disturb the others
PARTS: tuple[Part, ...] = ("train", "validation", "test")


def study_noise(
    ledger: Ledger, plan: Plan, patients: Patients, study: str, run: str, epsilon: float, delta: float
) -> Noise:
    """The least noise with which every patient stays within `epsilon` when the whole study has been done.

    Args:
        ledger: of the site. What it holds of this run of this study is part of the plan.
        plan: of the study.
        patients: pseudonyms of the three parts.
        study, run: names, as `Purpose` has them.
        epsilon, delta: budget of a patient over everything.

    Raises:
        PolicyError: FECG-437 the plan does not fit beside what was spent before.
    """

    def of_this_run(purpose: Purpose) -> bool:
        return (purpose.study, purpose.run) == (study, run)

    before: dict[str, frozenset[History]] = {
        part: ledger.histories(patients.get(part, frozenset()), of_this_run) for part in PARTS
    }
    spent = max((epsilon_of(history, delta) for some in before.values() for history in some), default=0.0)
    least = LEAST_SHARE * epsilon
    try:
        noise = planned_noise(plan, epsilon, delta, tuple(sorted(before.items())))
    except PolicyError:
        if not spent:
            raise
        raise _does_not_fit(study, spent, epsilon, least) from None
    alone = min(  # of the part that has least left
        epsilon_of([spend for spend in plan.spends(noise) if spend.part == part], delta) for part in PARTS
    )
    if alone < least:
        raise _does_not_fit(study, spent, epsilon, least)
    return noise


def _does_not_fit(study: str, spent: float, epsilon: float, least: float) -> PolicyError:
    return PolicyError(
        "FECG-437",
        f"privacy budget for study {study}",
        found=f"an epsilon of {spent:.3f} spent on these patients before",
        expected=f"room for at least {least:.3g} (planned) within the budget of {epsilon:g} (privacy.epsilon)",
        fix="Raise privacy.epsilon in site.toml, if the patients may be known that well, or leave this study out.",
    )
