"""The messages of a study with differential privacy: what each may say, and what is refused.

In:  settings, replies. Out: documents for `messages`; checks that the coordinator makes before it uses one.
Called by both sides. Exactly four kinds of thing leave a site, and these documents have room for no other:

    (i)   the update of a round, by DP-SGD
    (ii)  noised events by time bin: of the training part with the survey, of the validation part at the end
    (iii) noised sums of clipped hazards by time bin: with the survey, every `hazard-every` rounds, and at the end
    (iv)  noised (time, risk, event) histograms: of validation patients a look at where the log hazards lie (64 wide
          bins, one of time) and one to evaluate, of test patients one

Beside them stand names, hashes, and what follows from the lock, site.toml and the ledger: spends and the ledger's head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedecg.config import Section, StudySettings
from fedecg.errors import FederationError, SettingsError
from fedecg.federation.documents import GridDocument, LedgerHead, Part
from fedecg.federation.spent import SpendDocument
from fedecg.federation.tasks import EvaluateTask, TrainReply
from fedecg.privacy.accountant import Noise, Spend
from fedecg.training.protected import refuse_coupled_losses

__all__ = [
    "NoisedEvaluateReply",
    "NoisedSurveyReply",
    "check_evaluation",
    "check_survey",
    "check_train",
    "evaluate_spends",
    "hazard_is_due",
    "is_look",
    "look_document",
    "noised_edges",
    "refuse_more_than_noise",
    "survey_spends",
    "train_spends",
]

Noised = Annotated[float, Field(ge=-1e100, le=1e100)]

ANY_NOISE = Noise(1.0, 1.0, 1.0, 1.0)
LOOK_BINS, LOOK_REACH = 64, 8.0  # of log hazards: 8 x 8 cells all the same, in one row


class NoisedSurveyReply(Section):
    """(ii) and (iii) of the training part, before survival training."""

    site: str
    train_events: list[Noised]
    train_exp_sums: list[Noised]
    spends: list[SpendDocument]
    ledger: LedgerHead | None = None


class NoisedEvaluateReply(Section):
    """(iv) of the parts asked for, cells (T, R, 2) flattened; with validation (ii) and (iii) of it."""

    site: str
    cells: dict[Part, list[Noised]]
    validation_events: list[Noised] | None = None
    validation_exp_sums: list[Noised] | None = None
    spends: list[SpendDocument]
    ledger: LedgerHead | None = None


def refuse_more_than_noise(settings: StudySettings) -> None:
    """What a study with differential privacy may not ask for, before it asks anything.

    Raises:
        SettingsError: FECG-560 exchanges of which nothing may leave a site.
        ModelError: FECG-386 a loss that is no sum over patients.
    """
    if settings.privacy.mode != "sample":
        return
    asked = {
        "evaluation.explain = false": settings.evaluation.explain,
        "evaluation.baselines = false": settings.evaluation.baselines,
        'model.preset = "fedecg"': settings.model.preset != "fedecg",
        'data.aligned = "" (its ledger would be another), or data.public-patients': bool(
            settings.data.aligned
        )
        and not settings.data.public_patients,
    }
    wrong = [wanted for wanted, is_wrong in asked.items() if is_wrong]
    if wrong:
        raise SettingsError(
            "FECG-560",
            'study with privacy.mode = "sample"',
            found=f"{len(wrong)} setting(s) that ask for more than updates and noised sums",
            expected=", ".join(wrong),
            fix="Beside the update only noised events, hazard sums and histograms leave a site.",
        )
    if settings.align.rounds:
        refuse_coupled_losses(settings, "align")
    refuse_coupled_losses(settings, "survival")


def noised_edges(settings: StudySettings) -> NDArray[np.float64]:
    """Left edges (bins,) in days of noised events and hazard sums: even up to the horizon, where the last bin starts.

    Few, and known beforehand: each has noise of its own.
    """
    bins = min(settings.privacy.hazard_bins, settings.survival.bins)
    return np.linspace(0.0, settings.survival.horizon_days, bins)


def hazard_is_due(settings: StudySettings, number: int) -> bool:
    """Whether the replies to this survival round bring hazard sums; those before round 1 are the survey's."""
    return number > 1 and (number - 1) % settings.privacy.hazard_every == 0


def is_look(task: EvaluateTask) -> bool:
    """Whether a histogram is all that is asked for: no bins of time for anything else."""
    return not task.edges_days


def survey_spends(noise: Noise) -> list[Spend]:
    """What a survey costs."""
    return [Spend("events", "train", noise.train_sums), Spend("hazard", "train", noise.train_sums)]


def train_spends(settings: StudySettings, stage: str, number: int, noise: Noise) -> list[Spend]:
    """What a round costs."""
    steps = (settings.align if stage == "align" else settings.survival).local_steps
    training = Spend("training", "train", noise.training, settings.privacy.sampling_rate, steps)
    due = stage == "survival" and hazard_is_due(settings, number)
    return [training, *([Spend("hazard", "train", noise.train_sums)] if due else [])]


def look_document() -> GridDocument:
    """Cuts of the look at validation patients: one bin of time, public risk cuts that hold whatever there is."""
    return GridDocument(
        time_cuts_days=[], risk_cuts=np.linspace(-LOOK_REACH, LOOK_REACH, LOOK_BINS - 1).tolist()
    )


def evaluate_spends(parts: Sequence[Part], noise: Noise, *, look: bool = False) -> list[Spend]:
    """What an evaluation of some parts costs; a look at validation brings its histogram alone."""
    spends: list[Spend] = []
    if "validation" in parts:
        kinds = ("histogram",) if look else ("events", "hazard", "histogram")
        spends += [Spend(kind, "validation", noise.validation) for kind in kinds]
    if "test" in parts:
        spends.append(Spend("histogram", "test", noise.test))
    return spends


def check_survey(settings: StudySettings, site: str, reply: NoisedSurveyReply) -> None:
    """Both sums as long as the study's bins, at the price of a survey.

    Raises:
        FederationError: FECG-503 another length; FECG-561 other releases than these.
    """
    bins = len(noised_edges(settings))
    _check_length(f"noised events of {site}", reply.train_events, bins)
    _check_length(f"noised hazard sums of {site}", reply.train_exp_sums, bins)
    _check_spends(site, reply.spends, survey_spends(ANY_NOISE))


def check_train(settings: StudySettings, site: str, reply: TrainReply, stage: str) -> None:
    """A site's reply must say what its study's mode allows, all of it and nothing more.

    Raises:
        FederationError: FECG-503 missing, or of another length; FECG-561 more, or other releases.
    """
    if settings.privacy.mode != "sample":
        if reply.noised is not None:
            _refuse_more(site, "noised sums", 'privacy.mode = "sample"')
        return
    if (
        any((reply.patients, reply.events, reply.steps))
        or (reply.loss, reply.sums, reply.alignment) != (None,) * 3
    ):
        _refuse_more(site, "numbers without noise", "an update and noised sums alone")
    if reply.noised is None:
        raise FederationError(
            "FECG-503", f"reply of {site}", found="no spends", expected="those of the round"
        )
    planned = train_spends(settings, stage, reply.round, ANY_NOISE)
    _check_spends(site, reply.noised.spends, planned)
    sums, due = reply.noised.train_exp_sums, len(planned) > 1
    if (sums is not None) != due:
        _refuse_more(site, f"{'no ' if sums is None else ''}hazard sums", "them every hazard-every rounds")
    if sums is not None:
        _check_length(f"noised hazard sums of {site}", sums, len(noised_edges(settings)))


def check_evaluation(
    settings: StudySettings,
    shape: tuple[int, int, int],
    parts: Sequence[Part],
    site: str,
    reply: NoisedEvaluateReply,
    *,
    look: bool = False,
) -> None:
    """Histograms of the parts asked for, in the grid's shape; raises as `check_survey`.

    Args:
        look: a histogram of validation was asked for, and nothing else.
    """
    if set(reply.cells) != set(parts):
        _refuse_more(site, f"histograms of {', '.join(sorted(reply.cells)) or 'none'}", ", ".join(parts))
    for part, cells in reply.cells.items():
        _check_length(f"noised {part} histogram of {site}", cells, math.prod(shape))
    bins = len(noised_edges(settings)) if "validation" in parts and not look else 0
    for column in (reply.validation_events, reply.validation_exp_sums):
        _check_length(f"noised validation sums of {site}", column or [], bins)
    _check_spends(site, reply.spends, evaluate_spends(parts, ANY_NOISE, look=look))


def _check_length(what: str, column: Sequence[float], expected: int) -> None:
    if len(column) != expected:
        raise FederationError(
            "FECG-503", what, found=f"{len(column)} numbers", expected=f"{expected} numbers"
        )


def _check_spends(site: str, told: Sequence[SpendDocument], planned: Sequence[Spend]) -> None:
    """Whatever the noise: mechanisms, parts, sampling and steps are the study's."""
    kinds = [(one.mechanism, one.part, one.sampling_rate, one.steps) for one in told]
    if kinds != [(one.mechanism, one.part, one.sampling_rate, one.steps) for one in planned]:
        _refuse_more(
            site, f"{len(told)} release(s) of other kinds, rates or steps", f"the {len(planned)} of the study"
        )


def _refuse_more(site: str, found: str, expected: str) -> NoReturn:
    raise FederationError(
        "FECG-561",
        f"reply of {site}",
        found=found,
        expected=expected,
        fix="The site must run this version of fedecg, and the study that it joined.",
    )
