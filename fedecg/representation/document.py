"""Several models on the same records, as one document: what `fedecg probe` prints and writes as JSON.

In:  networks by name (the model in question first, its controls after it), sites, a bank, a `ProbePlan`.
Out: a dictionary of plain facts. Called by `commands` and by docs/representations.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.evaluation.label_auc import patient_weights
from fedecg.model import Network
from fedecg.representation.families import FAMILIES
from fedecg.representation.macro import FEWEST_POSITIVES, ClassAuc, MacroAuc
from fedecg.representation.probes import FEWEST_LABELLED, FRACTIONS, ProbeResult, linear_probe
from fedecg.representation.records import ProbeSite, SiteEmbeddings, embed_site
from fedecg.representation.zero_shot import Recall, Retrieval, ZeroShot, retrieve, zero_shot
from fedecg.text import Bank, targets
from fedecg.text.separation import effective_rank

__all__ = ["Candidate", "Judged", "ProbePlan", "judge", "probe_document"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network to be judged.

    Attributes:
        name: in the tables.
        network: in evaluation mode.
        bank: that it was aligned to, or None.
        reason: why there is none, or "".
    """

    name: str
    network: Network
    bank: Bank | None
    reason: str = ""


@dataclass(frozen=True)
class ProbePlan:
    """How models are judged.

    Attributes:
        fractions: of the training labels.
        bootstrap: replicates of every interval.
        seed: of the draws and of the choice of labels.
        left_out: codes that alignment was not shown.
    """

    fractions: tuple[float, ...] = FRACTIONS
    bootstrap: int = 1000
    seed: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """What was found of a candidate.

    Attributes:
        probes: a family and share each.
        zero_shot, retrieval: None without a bank.
        ranks: effective rank of the projected embeddings and of what the same records state; None without a bank.
        reason: why there is no bank, or "".
    """

    probes: tuple[ProbeResult, ...]
    zero_shot: ZeroShot | None
    retrieval: Retrieval | None
    ranks: tuple[float, float] | None
    reason: str


def judge(
    candidate: Candidate,
    sites: Sequence[ProbeSite],
    plan: ProbePlan,
    done: Callable[[], None] = lambda: None,
) -> Judged:
    """Embed every record and ask all questions of it.

    Args:
        done: called after each probe.

    Raises:
        ModelError: FECG-371 embeddings that are not finite; FECG-376 as `fit_logistic`.
    """
    embedded = [embed_site(candidate.network, site) for site in sites]
    weights = _weights(embedded, plan)
    probes = []
    for family in FAMILIES:
        for fraction in plan.fractions:
            probes.append(linear_probe(embedded, family, fraction, weights, plan.seed))
            done()
    bank = candidate.bank
    if bank is None:
        return Judged(tuple(probes), None, None, None, candidate.reason)
    return Judged(
        tuple(probes),
        zero_shot(embedded, bank, weights, plan.left_out),
        retrieve(embedded, bank, weights),
        _ranks(embedded, bank),
        "",
    )


def probe_document(
    judged: Mapping[str, Judged], sites: Sequence[ProbeSite], plan: ProbePlan
) -> dict[str, Any]:
    """All that was found, without NaN; the first model is the one that the others stand beside."""
    first, *others = judged
    return {
        "sites": {
            site.name: {part: int((site.part == part).sum()) for part in np.unique(site.part).tolist()}
            for site in sites
        },
        "fewest-test-positives": FEWEST_POSITIVES,
        "fewest-labelled": FEWEST_LABELLED,
        "bootstrap": plan.bootstrap,
        "seed": plan.seed,
        "left-out": list(plan.left_out),
        "models": {name: _model(one) for name, one in judged.items()},
        "differences": {
            other: {
                key: _difference(mine, theirs)
                for (key, mine), theirs in zip(
                    _macros(judged[first]).items(), _macros(judged[other]).values(), strict=True
                )
                if mine is not None and theirs is not None
            }
            for other in others
        },
    }


def _weights(embedded: Sequence[SiteEmbeddings], plan: ProbePlan) -> list[Float64]:
    """By seed and site name alone: every model meets the same draws."""
    return [
        patient_weights(
            site.patient, plan.bootstrap, np.random.default_rng([plan.seed, 1, *site.name.encode()])
        )
        for site in embedded
    ]


def _ranks(embedded: Sequence[SiteEmbeddings], bank: Bank) -> tuple[float, float]:
    """Over all records that state a code of the bank, of all sites."""
    known = set(bank.codes)
    stated = [
        {code: likelihood for code, likelihood in one.items() if code in known}
        for site in embedded
        for one in site.codes
    ]
    share = targets(stated, bank)
    rows = share.any(axis=1)
    projected = np.concatenate([site.projected for site in embedded])[rows]
    if not rows.any():
        return 0.0, 0.0
    wanted = share[rows] @ bank.vectors
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    return effective_rank(projected.astype(np.float32)), effective_rank(wanted)


def _macros(one: Judged) -> dict[str, MacroAuc | None]:
    shot = one.zero_shot
    named: dict[str, MacroAuc | None] = {
        f"{probe.family}@{probe.fraction:g}": probe.macro for probe in one.probes
    }
    named |= {
        "zero-shot": shot.seen if shot else None,
        "zero-shot-left-out": shot.left_out if shot else None,
    }
    return named


def _difference(mine: MacroAuc, theirs: MacroAuc) -> dict[str, float | None]:
    """Of the pooled macro AUC, with a paired bootstrap interval: both models met the same draws."""
    apart = mine.replicates - theirs.replicates
    drawn = apart[1:][np.isfinite(apart[1:])]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (math.nan, math.nan)
    return {
        "difference": _known(apart[0]),
        "ci-low": _known(float(low)),
        "ci-high": _known(float(high)),
    }


def _model(one: Judged) -> dict[str, Any]:
    shot, found = one.zero_shot, one.retrieval
    return {
        "probes": {f"{probe.family}@{probe.fraction:g}": _probe(probe) for probe in one.probes},
        "zero-shot": shot and _macro(shot.seen),
        "zero-shot-left-out": shot and shot.left_out and _macro(shot.left_out),
        "retrieval": found
        and {
            "ecgs": found.ecgs,
            "statements": found.statements,
            "ecg-to-statement": [_recall(recall) for recall in found.to_statement],
            "statement-to-ecg": [_recall(recall) for recall in found.to_ecg],
        },
        "effective-rank": one.ranks and {"embeddings": one.ranks[0], "targets": one.ranks[1]},
        "without-bank": one.reason,
    }


def _probe(probe: ProbeResult) -> dict[str, Any]:
    shown = {"labelled": probe.labelled, "not-shown": probe.reason, "penalty": probe.strength}
    return shown if probe.macro is None else shown | _macro(probe.macro)


def _macro(macro: MacroAuc) -> dict[str, Any]:
    return {
        "records": macro.records,
        "macro-auc": _known(macro.pooled),
        "ci-low": _known(macro.pooled_low),
        "ci-high": _known(macro.pooled_high),
        "federated": {
            "macro-auc": _known(macro.federated),
            "lower": _known(macro.lower),
            "upper": _known(macro.upper),
            "ci-low": _known(macro.federated_low),
            "ci-high": _known(macro.federated_high),
        },
        "classes": [_class(one) for one in macro.shown],
        "apart": [_class(one) for one in macro.apart],
    }


def _class(one: ClassAuc) -> dict[str, Any]:
    return {
        "name": one.name,
        "positives": one.positives,
        "auc": one.auc,
        "lower": one.lower,
        "upper": one.upper,
    }


def _recall(recall: Recall) -> dict[str, Any]:
    return {
        "k": recall.depth,
        "recall": _known(recall.recall),
        "ci-low": _known(recall.low),
        "ci-high": _known(recall.high),
        "guess": _known(recall.guess),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
