"""Is it true? All tests of a model's attention, their thresholds, and what a caption must say.

In:  a network, signals (n, 12, samples) in mV and outcomes; at the coordinator the sums of the sites.
Out: `FaithfulnessSums`, which add up over sites, so that no ECG leaves; `Faithfulness` with verdicts in words.
Called by sites (`faithfulness_sums`), by the coordinator and by `fedecg.report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import ModelError
from fedecg.explanation.deletion import Deletion, DeletionSums, deletion, deletion_sums
from fedecg.explanation.occlusion import Occlusion, OcclusionSums, occlusion, occlusion_sums
from fedecg.explanation.randomisation import (
    Randomisation,
    RandomisationSums,
    randomisation,
    randomisation_sums,
)
from fedecg.explanation.stability import Stability, StabilitySums, stability, stability_sums
from fedecg.model import Network

__all__ = [
    "ABOUT",
    "MOST_ECGS",
    "NOT_ASKED",
    "THRESHOLDS",
    "Faithfulness",
    "FaithfulnessSums",
    "SeedsOf",
    "Thresholds",
    "Verdict",
    "caption",
    "faithfulness",
    "faithfulness_sums",
]

MOST_ECGS = 300  # of a site; bounds the time: about 75 passes of the network an ECG
ABOUT = ("time attention", "lead attention")

SeedsOf = Literal["survival", "both stages"]
OVER = {
    "survival": "over seeds of the survival stage; the alignment is shared",
    "both stages": "over seeds of both stages",
}
NOT_ASKED = "the study trained with one seed alone (evaluation.explain-seeds = 0)"


@dataclass(frozen=True)
class Thresholds:
    """From where on a test counts as passed.

    Attributes:
        similarity: mean Spearman correlation with shuffled copies must lie below it.
        p_value: of the rank among the shuffled copies, at most.
        stability: mean Spearman correlation between seeds, at least.
        agreement: mean Spearman correlation of attention received with the effect of hiding the lead, at least.
        ecgs: fewer are too few for any verdict.
    """

    similarity: float = 0.5
    p_value: float = 0.05
    stability: float = 0.5
    agreement: float = 0.5
    ecgs: int = 20


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """One test of one kind of map.

    Attributes:
        test: its name.
        about: "time attention" or "lead attention".
        passed: None where it could not be judged.
        sentence: what was measured, in words; of a test that was not made, why.
        tested: whether the test was made at all.
    """

    test: str
    about: str
    passed: bool | None
    sentence: str
    tested: bool = True


@dataclass(frozen=True, eq=False)
class FaithfulnessSums:
    """All that a site tells; every part adds up over sites.

    Attributes:
        randomisation, deletion, occlusion: as their modules say.
        stability: None where one model was given.
    """

    randomisation: RandomisationSums
    deletion: DeletionSums
    occlusion: OcclusionSums
    stability: StabilitySums | None

    def __add__(self, other: FaithfulnessSums) -> FaithfulnessSums:
        one, two = self.stability, other.stability
        if (one is None) != (two is None):
            raise ModelError(
                "FECG-355",
                "sums of the stability over seeds",
                found="some sites with it and some without",
                expected="sums of the same models",
                fix="Compare the same models at every site.",
            )
        return FaithfulnessSums(
            self.randomisation + other.randomisation,
            self.deletion + other.deletion,
            self.occlusion + other.occlusion,
            None if one is None or two is None else one + two,
        )


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Results and verdicts.

    Attributes:
        time, leads: weight randomisation of the two kinds of map.
        deletion, occlusion: as their modules say.
        stability: None where one model was given; its verdicts then say that it was not tested.
        verdicts: in the order in which a report shows them.
    """

    time: Randomisation
    leads: Randomisation
    deletion: Deletion
    occlusion: Occlusion
    stability: Stability | None
    verdicts: tuple[Verdict, ...]


def faithfulness_sums(
    network: Network,
    signal_mv: NDArray[np.float32],
    time: ArrayLike,
    event: ArrayLike,
    seed: int,
    seeds: Sequence[Network] = (),
) -> FaithfulnessSums:
    """Run all tests on a site's ECGs, the first `MOST_ECGS` of them.

    Args:
        network: the model.
        signal_mv: (n, 12, samples) float32, mV; one ECG a patient, patients in an order that says nothing.
        time: (n,) days to the event or the last contact.
        event: (n,) 1/True = event seen, 0/False = censored.
        seed: public, of the shuffles and of the random order.
        seeds: the same study's models with other seeds.

    Raises:
        ModelError: FECG-353, signals that do not fit; FECG-354, models of other lengths.
        CohortError: FECG-235..238, outcomes that cannot be used.
    """
    signal = signal_mv[:MOST_ECGS]
    days, seen = np.asarray(time)[:MOST_ECGS], np.asarray(event)[:MOST_ECGS]
    return FaithfulnessSums(
        randomisation_sums(network, signal, seed),
        deletion_sums(network, signal, np.random.default_rng(seed)),
        occlusion_sums(network, signal, days, seen),
        stability_sums([network, *seeds], signal) if seeds else None,
    )


def faithfulness(
    sums: FaithfulnessSums,
    thresholds: Thresholds = THRESHOLDS,
    seeds_of: SeedsOf = "survival",
    untested: str = NOT_ASKED,
) -> Faithfulness:
    """Results and what they mean.

    Args:
        sums: of one site or of all.
        thresholds: from where on a test counts as passed.
        seeds_of: which stages the models that are compared were trained again in.
        untested: why there is one model alone, where that is so.
    """
    time, leads = randomisation(sums.randomisation)
    curves, hidden = deletion(sums.deletion), occlusion(sums.occlusion)
    seeds = None if sums.stability is None else stability(sums.stability)
    enough = sums.randomisation.ecgs >= thresholds.ecgs
    verdicts = [
        _randomised("time attention", time, thresholds, enough),
        _randomised("lead attention", leads, thresholds, enough),
        *_deleted(curves, enough),
        _occluded(hidden, thresholds, enough),
    ]
    if seeds is None:
        verdicts += [Verdict("stability over seeds", about, None, untested, tested=False) for about in ABOUT]
    else:
        verdicts += _stable(seeds, thresholds, enough, OVER[seeds_of])
    return Faithfulness(time, leads, curves, hidden, seeds, tuple(verdicts))


def caption(result: Faithfulness, about: str, mixes_leads: bool = False) -> str:
    """What stands under a map: what the tests found, and that it is no explanation where one failed.

    Args:
        result: of `faithfulness`.
        about: "time attention" or "lead attention".
        mixes_leads: preset `paper`, whose time attention sees all leads.
    """
    verdicts = [verdict for verdict in result.verdicts if verdict.about == about]
    made = [verdict for verdict in verdicts if verdict.tested]
    not_made = [verdict for verdict in verdicts if not verdict.tested]
    failed = [verdict for verdict in made if verdict.passed is False]
    if failed:
        text = f"{about.capitalize()} is not an explanation here. It fails: {_told(failed)}."
    elif any(verdict.passed is None for verdict in made):
        text = f"{about.capitalize()}: too few ECGs to say whether it explains anything."
    else:
        begins = "failed none of the tests made" if not_made else "passed its tests"
        text = f"{about.capitalize()} {begins}: {_told(made)}. {WHERE_NOT_WHAT}"
    if not_made:
        text += f" Not tested: {_told(not_made)}."
    return f"{text} {MIXED_LEADS}" if mixes_leads and about == "time attention" else text


WHERE_NOT_WHAT = "It shows where the network looked, not what it concluded."
MIXED_LEADS = (
    "In this preset (paper) the first layers mix all leads, so a strip under a lead says when, "
    "not in which lead."
)


def _told(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(f"{verdict.test} ({verdict.sentence})" for verdict in verdicts)


def _randomised(about: str, result: Randomisation, thresholds: Thresholds, enough: bool) -> Verdict:
    passed = result.similarity < thresholds.similarity and result.p_value <= thresholds.p_value
    sentence = (
        f"distance {result.distance:.3f} from shuffled copies of the network, theirs up to "
        f"{result.copies_distance:.3f}, p = {result.p_value:.2f}, rank correlation {result.similarity:.2f}"
    )
    return Verdict("weight randomisation", about, passed if enough else None, sentence)


def _deleted(curves: Deletion, enough: bool) -> list[Verdict]:
    compared = {
        "deletion": (curves.deletion_random, curves.deletion_gradient),
        "insertion": (curves.insertion_random, curves.insertion_gradient),
    }
    return [
        Verdict(
            test,
            "time attention",
            bool(random.low > 0) if enough else None,
            f"area against a random order {random.value:+.3f} ({random.low:+.3f} to {random.high:+.3f}), "
            f"against gradient x input {gradient.value:+.3f} ({gradient.low:+.3f} to {gradient.high:+.3f}), "
            "log hazard",
        )
        for test, (random, gradient) in compared.items()
    ]


def _occluded(hidden: Occlusion, thresholds: Thresholds, enough: bool) -> Verdict:
    sentence = (
        f"rank correlation {hidden.agreement:.2f} of attention received with the effect of hiding the lead"
    )
    return Verdict(
        "lead occlusion",
        "lead attention",
        bool(hidden.agreement >= thresholds.agreement) if enough else None,
        sentence,
    )


def _stable(seeds: Stability, thresholds: Thresholds, enough: bool, over: str) -> list[Verdict]:
    return [
        Verdict(
            "stability over seeds",
            about,
            bool(value >= thresholds.stability) if enough else None,
            f"rank correlation {value:.2f} between {seeds.models} models {over}",
        )
        for about, value in zip(ABOUT, (seeds.time, seeds.leads), strict=True)
    ]
