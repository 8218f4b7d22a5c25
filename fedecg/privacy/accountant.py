"""How much of a patient's privacy budget releases cost, and how much noise a plan needs to stay within one.

In:  releases as `Spend`s; the study's settings, epsilon and delta of a site. Out: epsilon; noise multipliers.
Called by the ledger, which adds up what was spent, and by the client, which chooses its noise before a study.

A mechanism is a Gaussian one on a sum over patients: noise of standard deviation `noise_multiplier` times its L2
sensitivity to one patient more or less, on all patients or on a Poisson sample of them. Everything that was released
about the same patients composes. Both accountants are Opacus': Rényi (`rdp`), which the ledger counts with, and
`prv`, which is tighter, for comparison. Training, validation and test patients are disjoint: each part has the whole
budget for itself (parallel composition). Opacus loads torch, and is loaded when something is computed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedecg.config import StudySettings
from fedecg.errors import PolicyError

__all__ = [
    "Accountant",
    "Before",
    "Noise",
    "Part",
    "Plan",
    "Spend",
    "epsilon_of",
    "least_noise",
    "planned_noise",
]

Accountant = Literal["rdp", "prv"]
Part = Literal["train", "validation", "test"]

LEAST_NOISE, MOST_NOISE = 1e-2, 1e6
PRECISION = 1e-4  # of a noise multiplier, relative
VALIDATION_HISTOGRAMS = 2  # a look at where the risks are, then the one that is evaluated
TINY = 1e-12
# Opacus' own default orders, and higher ones: a small epsilon has its optimum there.
ORDERS = [
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *range(12, 64),
    *(2**power * step for power in range(6, 11) for step in (1.0, 1.25, 1.5, 1.75)),
]


@dataclass(frozen=True)
class Spend:
    """One kind of release about the patients of one part.

    Attributes:
        mechanism: "training", "events", "hazard" or "histogram".
        part: whose patients.
        noise_multiplier: standard deviation of the noise over the L2 sensitivity to one patient.
        sampling_rate: chance of a patient to be in a step; 1 where all are.
        steps: how often.
    """

    mechanism: str
    part: Part
    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True)
class Noise:
    """Noise multipliers of a plan: of DP-SGD; of the sums of the training part; of those of the others.

    Attributes:
        training: of every optimiser step of both stages.
        train_sums: of events and hazard sums of the training part.
        validation: of each release about validation patients.
        test: of the one release about test patients.
    """

    training: float
    train_sums: float
    validation: float
    test: float


def epsilon_of(spends: Sequence[Spend], delta: float, accountant: Accountant = "rdp") -> float:
    """Epsilon of all these releases about the same patients, at `delta`.

    Returns:
        0 for no release; infinity where one of them has no noise.

    Source: Mironov 2017, arXiv 1702.07476 (RDP); Gopi, Lee, Wutschitz 2021, arXiv 2106.02848 (PRV).
    """
    history = [(spend.noise_multiplier, spend.sampling_rate, spend.steps) for spend in spends if spend.steps]
    if not history:
        return 0.0
    if min(noise for noise, _, _ in history) <= 0:
        return math.inf
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    # Opacus warns of an optimum at the end of its orders, and takes logarithms of 0 where it does not use them.
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        if accountant == "rdp":
            curve = sum(steps * _renyi(noise, rate) for noise, rate, steps in history)
            return float(get_privacy_spent(orders=ORDERS, rdp=curve, delta=delta)[0])
        loss = PRVAccountant()
        loss.history = history
        return float(loss.get_epsilon(delta))


@lru_cache(maxsize=1024)
def _renyi(noise_multiplier: float, sampling_rate: float) -> NDArray[np.float64]:
    """Rényi divergences of one step at `ORDERS`: they add up, and a history repeats few kinds of steps."""
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.asarray(compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS))


@dataclass(frozen=True)
class Plan:
    """What a study releases about each patient, and what it keeps for exchanges that are killed after their spend.

    Attributes:
        steps: optimiser steps of both stages.
        sampling_rate: chance of a patient to be in a step.
        hazard_releases: how often hazard sums of the training part leave.
        sums_share: share of epsilon for the sums of the training part.
        reserve: how often the survey, a round and an exchange about validation may each be paid for once more.
        round_steps: optimiser steps of the longest round.
    """

    steps: int
    sampling_rate: float
    hazard_releases: int
    sums_share: float
    reserve: int = 0
    round_steps: int = 0

    @staticmethod
    def of(settings: StudySettings) -> Plan:
        """The plan of a study: hazard sums leave with the survey, then every `hazard-every` rounds."""
        stages, privacy = (settings.align, settings.survival), settings.privacy
        return Plan(
            steps=sum(stage.rounds * stage.local_steps for stage in stages),
            sampling_rate=privacy.sampling_rate,
            hazard_releases=max(1, math.ceil(settings.survival.rounds / privacy.hazard_every)),
            sums_share=privacy.sums_share,
            reserve=privacy.reserve,
            round_steps=max(stage.local_steps for stage in stages if stage.rounds or stage is stages[1]),
        )

    def spends(self, noise: Noise) -> list[Spend]:
        """All releases of the study, each exchange paid for once."""
        return [
            Spend("training", "train", noise.training, self.sampling_rate, self.steps),
            Spend("events", "train", noise.train_sums),
            Spend("hazard", "train", noise.train_sums, steps=self.hazard_releases),
            Spend("events", "validation", noise.validation),
            Spend("hazard", "validation", noise.validation),
            Spend("histogram", "validation", noise.validation, steps=VALIDATION_HISTOGRAMS),
            Spend("histogram", "test", noise.test),
        ]

    def reserved(self, noise: Noise) -> list[Spend]:
        """What is kept for exchanges that must be paid for again; none for test, which no study needs to end well."""
        if not self.reserve:
            return []
        hazard = self.reserve * (1 if self.hazard_releases == 1 else 2)  # of the survey, of a round
        return [
            Spend("training", "train", noise.training, self.sampling_rate, self.reserve * self.round_steps),
            Spend("events", "train", noise.train_sums, steps=self.reserve),
            Spend("hazard", "train", noise.train_sums, steps=hazard),
            *(
                Spend(mechanism, "validation", noise.validation, steps=self.reserve)
                for mechanism in ("events", "hazard", "histogram")
            ),
        ]


@lru_cache(maxsize=64)
def least_noise(releases: int, epsilon: float, delta: float) -> float:
    """The least noise multiplier with which so many releases about everybody stay within `epsilon` together.

    Raises:
        PolicyError: FECG-430, none does.
    """
    return _least(
        lambda noise: epsilon_of([Spend("aggregate", "train", noise, steps=releases)], delta), epsilon
    )


Before = tuple[tuple[str, frozenset[tuple[Spend, ...]]], ...]  # part -> what was spent on its patients before


@lru_cache(maxsize=64)
def planned_noise(plan: Plan, epsilon: float, delta: float, before: Before = ()) -> Noise:
    """The least noise with which a whole study and its reserve stay within `epsilon`, at every patient of a site.

    Of the training part's budget the sums get what they would spend alone at `sums-share` of epsilon; training gets
    the rest, which is more than the difference, since epsilons compose less than additively.

    Args:
        plan: of the study.
        epsilon, delta: of every patient, over everything.
        before: histories of the patients of a part, each of which the study's own releases compose with.

    Raises:
        PolicyError: FECG-430, the study cannot be done within this budget.
    """
    histories = dict(before)

    def spent(part: Part, noise: Noise) -> float:
        new = [spend for spend in [*plan.spends(noise), *plan.reserved(noise)] if spend.part == part]
        return max(epsilon_of([*old, *new], delta) for old in histories.get(part) or [()])

    test = _least(lambda x: spent("test", Noise(1, 1, 1, x)), epsilon)
    validation = _least(lambda x: spent("validation", Noise(1, 1, x, 1)), epsilon)
    sums = _least(
        lambda x: spent("train", Noise(MOST_NOISE, x, 1, 1)), _share(spent, plan.sums_share, epsilon)
    )
    training = _least(lambda x: spent("train", Noise(x, sums, 1, 1)), epsilon)
    return Noise(training, sums, validation, test)


def _share(spent: Callable[[Part, Noise], float], share: float, epsilon: float) -> float:
    """What the sums of the training part may bring epsilon to: a share of what is left."""
    earlier = spent("train", Noise(MOST_NOISE, MOST_NOISE, 1, 1))
    return earlier + share * (epsilon - earlier) if earlier < epsilon else epsilon


def _least(epsilon_at: Callable[[float], float], budget: float) -> float:
    """The smallest noise multiplier within the budget, to `PRECISION`, from above."""
    low, high = LEAST_NOISE, MOST_NOISE
    if epsilon_at(high) > budget:
        raise PolicyError(
            "FECG-430",
            "privacy budget of the site",
            found=f"an epsilon of {budget:.3g} for a part of the study",
            expected="room for all its steps and sums",
            fix="Raise privacy.epsilon in site.toml, or ask the coordinator for fewer steps or a lower sampling-rate.",
        )
    if epsilon_at(low) <= budget:
        return low

    def excess(log_noise: float) -> float:
        """Almost a straight line, which needs few looks."""
        return math.log(min(max(epsilon_at(math.exp(log_noise)), TINY), 1 / TINY) / budget)

    noise = math.exp(brentq(excess, math.log(low), math.log(high), xtol=PRECISION / 10))
    while epsilon_at(noise) > budget:
        noise *= 1 + PRECISION / 10
    return noise
