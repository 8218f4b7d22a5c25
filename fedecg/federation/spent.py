"""What a site with differential privacy says beside its update and its noised sums: its budget, and what a reply cost.

In:  `Spend`s of the privacy room. Out: documents that `messages` packs, and back; epsilon by phase and site.
Called by both sides. All of it follows from the study's lock, from site.toml and the ledger, nothing from patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fedecg.config import Section
from fedecg.privacy.accountant import Part, Spend, epsilon_of

__all__ = ["Budget", "NoisedSums", "SpendDocument", "Told", "site_entry"]

Noised = Annotated[float, Field(ge=-1e100, le=1e100)]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Budget(Section):
    """How much each patient of a site may be known, over everything: from its site.toml."""

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]


class SpendDocument(Section):
    """`fedecg.privacy.accountant.Spend`, field by field."""

    mechanism: Literal["training", "events", "hazard", "histogram"]
    part: Part
    noise_multiplier: Annotated[float, Field(gt=0, le=1e9)]
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1, le=2**40)]

    @staticmethod
    def of(spend: Spend) -> SpendDocument:
        """From the privacy room's type."""
        return SpendDocument(
            mechanism=spend.mechanism,  # type: ignore[arg-type]  # validated
            part=spend.part,
            noise_multiplier=spend.noise_multiplier,
            sampling_rate=spend.sampling_rate,
            steps=spend.steps,
        )

    def spend(self) -> Spend:
        """Back to the privacy room's type."""
        return Spend(self.mechanism, self.part, self.noise_multiplier, self.sampling_rate, self.steps)


class NoisedSums(Section):
    """Beside a round's update: what it cost and, every `hazard-every` rounds, hazard sums under the weights received.

    The sums are those of `fedecg.privacy.releases.noised_hazard_sums`, over the training part.
    """

    spends: list[SpendDocument]
    train_exp_sums: list[Noised] | None = None


Told = Mapping[str, Sequence[SpendDocument]]  # phase -> what its replies cost


def site_entry(name: str, budget: Budget, told: Told) -> dict[str, Any]:
    """One site's line of summary.json: what was spent on the patient about whom most was released.

    Epsilons of phases do not add up to that of the study: they compose less than additively, and parts are disjoint.

    Args:
        name: of the site.
        budget: of its site.toml.
        told: of every reply that has come; what a lost reply cost stands in the site's own ledger alone.
    """
    spends = [document.spend() for some in told.values() for document in some]
    return {
        "name": name,
        "epsilon": _most(spends, budget.delta),
        "delta": budget.delta,
        "budget": budget.epsilon,
        "parts": {part: _of_part(spends, part, budget.delta) for part in PARTS},
        "phases": {
            phase: _most([document.spend() for document in some], budget.delta)
            for phase, some in told.items()
            if some
        },
    }


def _most(spends: Sequence[Spend], delta: float) -> float:
    return max(_of_part(spends, part, delta) for part in PARTS)


def _of_part(spends: Sequence[Spend], part: Part, delta: float) -> float:
    return epsilon_of([spend for spend in spends if spend.part == part], delta)
