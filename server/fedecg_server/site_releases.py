"""Aggregates of a study with differential privacy of sites: counted on disk first, then made, with fresh noise.

In:  checked updates of a round, or their masked sum. Out: the next weights; epsilon over all that was released;
     `state/releases.json` in the run folder, replaced before each release.
Called by what is between rounds (`between_rounds`) and by the study, which tells epsilon at its end.

Guarantees:
    A release is counted, and its count is on the disk, before its noise is drawn: a coordinator that was killed and
    makes a round again counts it twice. A file that is damaged, or behind the checkpoint, stops the study (FECG-546).
    Nothing is counted less because not all sites took part: which do follows from the study's seed, which is no secret,
    so that there is no amplification by sampling.
    With `client-epsilon` an aggregate that would pass it is refused before its noise is drawn.
    Runs are counted one by one: what several runs tell of the same sites adds up, and nobody adds it up here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fedecg.config import Section, StudySettings
from fedecg.errors import RunError
from fedecg.federation.aggregation import Update
from fedecg.federation.few_sites import FEWEST_SITES, USUAL_EPSILON, WEAK_EPSILON
from fedecg.federation.participation import number_taking_part
from fedecg.federation.site_level import masked_sensitivity, noised_mean, noised_mean_of_sum
from fedecg.federation.site_noise import aggregates_of, noise_of_sites, not_kept
from fedecg.files import write_whole
from fedecg.model import Piece
from fedecg.privacy.accountant import Spend, epsilon_of, least_noise
from fedecg.privacy.secret import secret_generator

__all__ = ["Release", "SiteNoise", "SiteReleases"]

Vector = NDArray[np.float32]
FILE = "state/releases.json"


class Release(Section):
    """One aggregate of sites' updates."""

    stage: str  # as the book of rounds names it
    round: int
    noise: Annotated[float, Field(gt=0)]  # standard deviation over what one site can add


class _Document(Section):
    releases: list[Release]


@dataclass
class SiteReleases:
    """All aggregates of one run.

    Args:
        settings: the study.
        folder: of the run; None: nothing is kept on disk (simulations, which are simply run again).
        sites: how many the lock names, or have joined where it names none.
    """

    settings: StudySettings
    folder: Path | None = None
    sites: int = 0
    counted: list[Release] = field(default_factory=list)

    def resume(self, at_least: int) -> None:
        """Take up what was counted before.

        Args:
            at_least: as many as the checkpoint says.

        Raises:
            RunError: FECG-546 damaged, or fewer.
        """
        if self.folder is None:
            return
        try:
            self.counted = _Document.model_validate_json((self.folder / FILE).read_bytes()).releases
        except FileNotFoundError:
            self.counted = []
        except (OSError, ValidationError) as error:
            raise _damaged(type(error).__name__) from None
        if len(self.counted) < at_least:
            raise _damaged(f"{len(self.counted)} releases of {at_least} in the checkpoint")

    def count(self, stage: str, number: int) -> None:
        """One more aggregate, which may be made once this returns.

        Raises:
            PolicyError: FECG-455 it would pass `client-epsilon`. RunError: FECG-601 it cannot be written. Then nothing
                may be released.
        """
        release = Release(stage=stage, round=number, noise=self.noise)
        self._refuse_beyond(release)
        if self.folder is not None:
            document = _Document(releases=[*self.counted, release])
            write_whole(self.folder / FILE, document.model_dump_json())
            _sync((self.folder / FILE).parent)
        self.counted.append(release)

    @property
    def noise(self) -> float:
        """Of every aggregate: standard deviation over what one site can add."""
        return noise_of_sites(self.settings)

    def _refuse_beyond(self, release: Release) -> None:
        """More aggregates were made again than `reserve` provides for."""
        target = self.settings.privacy.client_epsilon
        if target and _epsilon([*self.counted, release], self.settings.privacy.client_delta) > target:
            raise not_kept(target, f"{len(self.counted)} noised means, of which one more would be too many")

    def epsilon(self, stage: str = "") -> float:
        """Of everything released so far, or of one stage and its repetitions."""
        some = [one for one in self.counted if one.stage.startswith(stage)]
        return _epsilon(some, self.settings.privacy.client_delta)

    def planned(self) -> str:
        """What the study will cost, if no aggregate is made twice."""
        return (
            f"differential privacy of sites: epsilon {self._planned_epsilon():.3g} at delta "
            f"{self.settings.privacy.client_delta:.0e} is planned, over {aggregates_of(self.settings)} aggregates with "
            f"noise of {self.noise:.3g} x the clip"
        )

    def weakness(self) -> str:
        """What is to be told of a plan that hides hardly anything; empty of others."""
        epsilon = self._planned_epsilon()
        if epsilon <= WEAK_EPSILON:
            return ""
        number, delta = aggregates_of(self.settings), self.settings.privacy.client_delta
        return (
            f"an epsilon of {epsilon:.3g} bounds hardly anything: it lets whoever sees the model tell almost for "
            f"certain whether a site took part. privacy.client-epsilon = {USUAL_EPSILON:g} chooses the noise that "
            f"this study needs for that (about {least_noise(number, USUAL_EPSILON, delta):.2g} x the clip); fewer "
            "rounds need less"
        )

    def _planned_epsilon(self) -> float:
        planned = Spend("aggregate", "train", self.noise, steps=aggregates_of(self.settings))
        return epsilon_of([planned], self.settings.privacy.client_delta)

    def entry(self) -> dict[str, Any]:
        """As result.json and summary.json have it; no site has an entry of its own."""
        privacy = self.settings.privacy
        return {
            "mode": privacy.mode,
            "sums": privacy.sums,
            "unit": "site",
            "sites": [],
            "epsilon": self.epsilon(),
            "delta": privacy.client_delta,
            "noise": self.noise,
            "clip": privacy.client_clip,
            "releases": len(self.counted),
            "phases": {
                stage: self.epsilon(stage)
                for stage in ("align", "survival")
                if any(one.stage.startswith(stage) for one in self.counted)
            },
            "of-sites": self.sites,
            "forced": self.sites < FEWEST_SITES,
        }

    def noise_for(self, stage: str, pieces: Callable[[int], Sequence[Piece]]) -> SiteNoise:
        """What makes the aggregates of a stage.

        Args:
            stage: as the book of rounds names it.
            pieces: round -> pieces of the vector.
        """
        return SiteNoise(self, stage, pieces)


@dataclass
class SiteNoise:
    """The aggregates of one stage."""

    releases: SiteReleases
    stage: str
    pieces: Callable[[int], Sequence[Piece]]

    @property
    def expected(self) -> int:
        """How many sites should take part in a round, whoever answers."""
        return max(1, number_taking_part(self.releases.sites, self.releases.settings.federation))

    def mean(self, number: int, sent: Vector, updates: Mapping[str, Update]) -> Vector:
        """(P,) the next weights, from what every site has sent."""
        self.releases.count(self.stage, number)
        privacy = self.releases.settings.privacy
        return noised_mean(
            sent,
            updates,
            privacy.client_clip,
            self.releases.noise,
            self.expected,
            secret_generator(),
            self.pieces(number),
        )

    def mean_of_sum(self, number: int, sent: Vector, total: NDArray[np.float64]) -> Vector:
        """(P,) the same, from the sum of what the sites have sent under masks."""
        self.releases.count(self.stage, number)
        privacy = self.releases.settings.privacy
        sites = max(self.releases.sites, 1)
        return noised_mean_of_sum(
            sent,
            total,
            masked_sensitivity(privacy.client_clip, len(sent), sites, privacy.masked_bound),
            self.releases.noise,
            self.expected,
            secret_generator(),
            self.pieces(number),
        )


def _epsilon(releases: Sequence[Release], delta: float) -> float:
    return epsilon_of([Spend("aggregate", "train", one.noise) for one in releases], delta)


def _sync(folder: Path) -> None:
    """The new name of a file must be on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(found: str) -> RunError:
    return RunError(
        "FECG-546",
        "releases of the run",
        found=found,
        expected="state/releases.json with every aggregate that was made",
        fix="Restore the newest one from a backup, or begin a new run: fedecg-server start --new.",
    )
