"""The pooled baseline hazard of a study with differential privacy: made of noised sums, kept between their releases.

In:  the survey's noised events and hazard sums, then a round's sums every `hazard-every` rounds. Out: the documents
that the next task carries; what ships with the model. Called by the server, in the place of `HazardState`.

No validation by round (each would be a release), no repeated round (its steps would be a spend that the plan lacks), no
moments of the log hazard: the risk cuts of the first histogram, a look, are public and far apart; those of the next
follow from the one before (post-processing).

The baseline keeps the level that it had with the survey. Clipped gradients draw the mean log hazard down, for events
have the longest; a baseline that followed would draw it further, until the noise of the sums, which is absolute, were
all that there is. A level is no matter for the order of patients, and what ships has one of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.evaluation import NoisedCounts, RiskTimeGrid, noised_risk_cuts, risk_grid, time_grid
from fedecg.federation.documents import HazardDocument, JoinedPart, PartCounts
from fedecg.federation.hazard import HazardState
from fedecg.federation.noised import NoisedEvaluateReply, NoisedSurveyReply, look_document, noised_edges
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.spent import SpendDocument
from fedecg.federation.tasks import TrainReply
from fedecg.objectives import Baseline
from fedecg.privacy.releases import baseline_from_noised, possible_counts, possible_risk_sets

__all__ = ["NoisedHazard", "histogram_noise", "shipped_sums"]

Floats = NDArray[np.float64]

DRAWS = 400


class NoisedHazard(HazardState):
    """Baseline hazard and evaluation grid from noised sums alone.

    Args:
        settings: the study.
        survey: site name -> its checked noised sums, under the weights that start the stage.

    Raises:
        FederationError: FECG-562 the noised events of all sites add up to none.
    """

    events: dict[str, Any]  # site -> (bins,) float64, with noise

    def __init__(self, settings: StudySettings, survey: Mapping[str, NoisedSurveyReply]) -> None:
        self.settings, self.parts = settings, {site: {} for site in survey}
        self.edges_days = self.shipped_edges_days = noised_edges(settings)
        self.events = {site: np.array(reply.train_events) for site, reply in sorted(survey.items())}
        self.own: dict[str, Baseline] = {}
        counts = possible_counts(_total(self.events.values()))
        if not counts.any():
            raise FederationError(
                "FECG-562",
                "training events with noise",
                found=f"none, of {len(survey)} site(s)",
                expected="more events than noise",
                fix="More sites, a larger privacy.sums-share, fewer hazard-bins; or sites with a larger epsilon.",
            )
        self.time_cuts_days = time_grid(self.edges_days[1:], counts[:-1], settings.privacy.time_bins)
        # Until somebody has looked.
        self.grid = RiskTimeGrid(self.time_cuts_days, risk_grid(0.0, 1.0, settings.privacy.risk_bins))
        self._shown: list[tuple[Floats, NoisedCounts]] = []
        sums = {site: np.array(survey[site].train_exp_sums) for site in self.events}
        scales = {site: self._scale(survey[site].spends) for site in self.events}
        self.cumulative, _ = self._fresh(sums, scales)

    def own_documents(self) -> dict[str, HazardDocument]:
        """With `survival.baseline = "site"` each site's own baseline, made of what it released itself; else nothing."""
        survival = self.settings.survival
        if survival.loss != "cox-pooled" or survival.baseline != "site":
            return {}
        return {
            site: HazardDocument(
                edges_days=baseline.edges_days.tolist(), cumulative=baseline.cumulative_hazard.tolist()
            )
            for site, baseline in self.own.items()
        }

    def admit(self, site: str, reply: Any, parts: Mapping[JoinedPart, PartCounts]) -> None:
        """A site that was away when the others were surveyed takes part from now on."""
        self.events[site], self.parts[site] = np.array(reply.train_events), parts
        self._fresh({site: np.array(reply.train_exp_sums)}, {site: self._scale(reply.spends)})

    def digest(self, record: RoundRecord, replies: Mapping[str, TrainReply]) -> bool:
        """Where sums have come, refresh the baseline from those who sent them; always True: no round is repeated.

        Their shape is taken, not their level: under the new baseline the sites' events are as many as under the old.
        """
        sums, scales = {}, {}
        for site, reply in sorted(replies.items()):
            if reply.noised is not None and reply.noised.train_exp_sums is not None:
                sums[site] = np.array(reply.noised.train_exp_sums)
                scales[site] = self._scale(reply.noised.spends)
        if not sums:
            return True
        fresh, ratio = self._fresh(sums, scales)
        record.hazard_ratio = ratio
        if self.settings.survival.loss != "grouped" and fresh[-1] > 0:
            self.cumulative = fresh * ratio
        return True

    @property
    def look(self) -> RiskTimeGrid:
        """Where the log hazards lie, whatever their level: many risk bins, one of time."""
        return RiskTimeGrid(np.empty(0), np.array(look_document().risk_cuts))

    def cut_where_risks_are(self, grid: RiskTimeGrid, replies: Mapping[str, NoisedEvaluateReply]) -> None:
        """Cut the next histogram at quantiles of what noised ones of validation have shown so far.

        Args:
            grid: of the last.
            replies: with it.
        """
        cells = _total(np.array(reply.cells["validation"]).reshape(grid.shape) for reply in replies.values())
        noise = math.sqrt(sum(histogram_noise(reply) ** 2 for reply in replies.values()))
        self._shown.append((grid.risk_cuts, NoisedCounts(cells, noise)))
        risk_cuts = noised_risk_cuts(self._shown, self.settings.privacy.risk_bins)
        self.grid = RiskTimeGrid(self.time_cuts_days, risk_cuts)

    def _scale(self, spends: Iterable[SpendDocument]) -> float:
        return hazard_scale(self.settings, spends)

    def _fresh(self, sums: Mapping[str, Floats], scales: Mapping[str, float]) -> tuple[Floats, float]:
        """The baseline of the sites that sent sums, and how well the present one fits them (1 before the first)."""
        bound = self.settings.privacy.hazard_clip
        late = self.settings.privacy.entry_times
        for site in sums:
            self.own[site] = baseline_from_noised(
                self.edges_days, self.events[site], sums[site], bound, scales[site], late
            )
        events = _total(self.events[site] for site in sums)
        total = _total(sums.values())
        noise = math.sqrt(sum(scale**2 for scale in scales.values()))
        fresh = baseline_from_noised(self.edges_days, events, total, bound, noise, late)
        counts = possible_counts(events)
        if not hasattr(self, "cumulative") or not counts.any():
            return fresh.cumulative_hazard, 1.0
        risk = possible_risk_sets(total, counts, bound, noise, late)
        expected = float(np.sum(np.diff(self.cumulative, prepend=0.0) * risk))
        return fresh.cumulative_hazard, expected / float(counts.sum())


def histogram_noise(reply: NoisedEvaluateReply) -> float:
    """Standard deviation of the noise in a cell of a site's histogram."""
    return next(spend.noise_multiplier for spend in reply.spends if spend.mechanism == "histogram")


def hazard_scale(settings: StudySettings, spends: Iterable[SpendDocument]) -> float:
    """Standard deviation of the noise in a bin of the hazard sums that cost this."""
    multiplier = next(spend.noise_multiplier for spend in spends if spend.mechanism == "hazard")
    return multiplier * (math.sqrt(2) if settings.privacy.entry_times else 1.0)


def shipped_sums(
    settings: StudySettings, replies: Mapping[str, NoisedEvaluateReply]
) -> tuple[Baseline, Floats]:
    """The baseline that ships, of validation patients, and its variance (bins,): events by chance, and the noise again.

    The variance is that of `DRAWS` baselines made of events drawn anew (Poisson) and of noise drawn anew, around the
    possible sums. The generator is the study's: what is drawn depends on noised numbers alone.
    """
    edges_days, bound, late = (
        noised_edges(settings),
        settings.privacy.hazard_clip,
        settings.privacy.entry_times,
    )
    events = _total(np.array(reply.validation_events) for reply in replies.values())
    sums = _total(np.array(reply.validation_exp_sums) for reply in replies.values())
    noise = math.sqrt(sum(hazard_scale(settings, reply.spends) ** 2 for reply in replies.values()))
    event_noise = math.sqrt(
        sum(
            spend.noise_multiplier**2
            for reply in replies.values()
            for spend in reply.spends
            if spend.mechanism == "events"
        )
    )
    shipped = baseline_from_noised(edges_days, events, sums, bound, noise, late)
    counts = possible_counts(events)
    risk = possible_risk_sets(sums, counts, bound, noise, late) / bound
    likely = risk - np.append(risk[1:], 0.0)
    rng = np.random.default_rng([settings.seed, *b"shipped"])
    drawn = [
        baseline_from_noised(
            edges_days,
            rng.poisson(counts) + event_noise * rng.standard_normal(len(counts)),
            likely + noise * rng.standard_normal(len(counts)),
            bound,
            noise,
            late,
        ).cumulative_hazard
        for _ in range(DRAWS)
    ]
    return shipped, np.maximum.accumulate(np.var(drawn, axis=0))


def _total(parts: Iterable[Floats]) -> Floats:
    return np.asarray(np.sum(np.stack(list(parts)), axis=0))
