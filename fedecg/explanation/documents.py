"""The tests of attention as documents: what the coordinator asks of every site, what each sends back.

In:  `FaithfulnessSums`, `GroupSums`. Out: documents that `fedecg.federation.messages` packs, and back; several models
as one flat vector, and back. Called by both sides.

No ECG and no map of a patient is in them. A sum over one patient would be that patient's number, so a site with fewer
than `FEWEST_PATIENTS` sends zeros instead, and no group's sums below as many. Above that the sums leave as they are,
without noise: they are disclosure-controlled, not private in a formal sense. Their size does not depend on the number
of patients, but for the groups, of which those that are large enough are sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedecg.config import MOST_REPEATS, Section
from fedecg.errors import FederationError
from fedecg.evaluation import Concordance
from fedecg.explanation.faithfulness import FaithfulnessSums, faithfulness_sums
from fedecg.explanation.groups import HIGH_RISK, LOW_RISK, GroupSums
from fedecg.federation.arrays import flat_arrays, read_arrays
from fedecg.federation.documents import Count, Part, SignedSum
from fedecg.federation.tasks import Task
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "VERSION",
    "ExplainReply",
    "ExplainTask",
    "GroupDocument",
    "joined_models",
    "known_groups",
    "split_models",
    "sums_of_nobody",
]

Vector = NDArray[np.float32]

VERSION: Literal[2] = 2  # of the sums
GROUP_DECIMALS = 5  # of a group's sums: digits beyond are noise and weigh twice as much
# Both sides know the seed, the steps to hide and the models; pair counts travel as `pairs`.
LEFT_OUT = {"seed", "counts", "models", "plain", "hidden"}
SIGNED = {
    "randomisation.similarity",
    "deletion.area",
    "occlusion.shift",
    "occlusion.agreement",
    "occlusion.gain_mixed",
    "stability.time",
    "stability.leads",
}
PAIR_SHAPE = (1 + LEADS, 3)


class ExplainTask(Task):
    """Test the attention of given weights on one part of each site's cohort; the settings say on how many ECGs.

    Attributes:
        part: of the cohorts.
        models: in the vector that comes with it, one behind the other: the study's, then those of other seeds.
        risk_cuts: of the log hazard, rising: below the first is low risk, from the last on is high risk.
    """

    part: Part
    models: Annotated[int, Field(ge=1, le=1 + MOST_REPEATS)] = 1
    risk_cuts: list[float] = []


class GroupDocument(Section):
    """`GroupSums`, field by field, arrays flat and with five decimals."""

    ecgs: Count
    time: list[SignedSum]
    leads: list[SignedSum]
    beat_ecgs: Count
    beat_signal_mv: list[SignedSum]
    beat_time: list[SignedSum]

    @staticmethod
    def of(sums: GroupSums) -> GroupDocument:
        """From the type of `groups`."""
        return GroupDocument(
            ecgs=sums.attention.ecgs,
            time=_rounded(sums.attention.time),
            leads=_rounded(sums.attention.leads),
            beat_ecgs=sums.beats.ecgs,
            beat_signal_mv=_rounded(sums.beats.signal_mv),
            beat_time=_rounded(sums.beats.time),
        )

    def sums(self, nobody: GroupSums) -> GroupSums:
        """Back to the type of `groups`, in the shapes of `nobodys_group`.

        Raises:
            FederationError: FECG-503 an array of another length.
        """
        attention = replace(
            nobody.attention,
            ecgs=self.ecgs,
            time=_shaped("time", self.time, nobody.attention.time),
            leads=_shaped("leads", self.leads, nobody.attention.leads),
        )
        beats = replace(
            nobody.beats,
            ecgs=self.beat_ecgs,
            signal_mv=_shaped("beat-signal-mv", self.beat_signal_mv, nobody.beats.signal_mv),
            time=_shaped("beat-time", self.beat_time, nobody.beats.time),
        )
        return GroupSums(attention, beats)


class ExplainReply(Section):
    """A site's sums: pair counts of its concordances, and every other array, flat, under `part.field`.

    Attributes:
        pairs: (13, 3) flattened: concordant, discordant, tied; of the log hazard as it is, then with each lead hidden.
        groups: name -> sums of a group that may leave the site.
    """

    site: str
    version: Literal[2]
    pairs: list[Count]
    arrays: dict[str, list[SignedSum]]
    groups: dict[str, GroupDocument] = {}

    @staticmethod
    def of(site: str, sums: FaithfulnessSums, groups: Mapping[str, GroupSums] | None = None) -> ExplainReply:
        """From the types of `faithfulness` and `groups`."""
        concordances = (sums.occlusion.plain, *sums.occlusion.hidden)
        return ExplainReply(
            site=site,
            version=VERSION,
            pairs=[n for one in concordances for n in (one.concordant, one.discordant, one.tied_risk)],
            arrays=flat_arrays(_parts(sums), LEFT_OUT),
            groups={name: GroupDocument.of(one) for name, one in (groups or {}).items()},
        )

    def sums(self, nobody: FaithfulnessSums) -> FaithfulnessSums:
        """Back to the type of `faithfulness`, in the shapes of `sums_of_nobody`.

        Raises:
            FederationError: FECG-503 arrays or pair counts that are missing, unknown, of another length or kind.
        """
        if len(self.pairs) != np.prod(PAIR_SHAPE):
            raise FederationError(
                "FECG-503",
                "pairs of a reply",
                found=f"{len(self.pairs)} numbers",
                expected=f"{np.prod(PAIR_SHAPE)} counts",
            )
        parts = read_arrays(self.arrays, _parts(nobody), LEFT_OUT, SIGNED)
        rows = np.array(self.pairs, dtype=np.int64).reshape(PAIR_SHAPE).tolist()
        plain, *hidden = (Concordance.from_counts(*row) for row in rows)
        parts["occlusion"] = replace(parts["occlusion"], plain=plain, hidden=tuple(hidden))
        return replace(nobody, **parts)


def sums_of_nobody(network: Network, seed: int, models: int = 1) -> FaithfulnessSums:
    """The sums of a site without patients: shapes, and what is public.

    Args:
        network: the model that is tested. seed: of the study. models: that one and those of other seeds.
    """
    nobody = np.zeros((0, LEADS, network.samples), dtype=np.float32)
    return faithfulness_sums(network, nobody, np.zeros(0), np.zeros(0), seed, seeds=[network] * (models - 1))


def known_groups(findings: Collection[str]) -> frozenset[str]:
    """Names that a group of a study can have: of risk, and the codes of its bank."""
    return frozenset({HIGH_RISK, LOW_RISK, *findings})


def joined_models(models: Sequence[Vector]) -> Vector:
    """Flat vectors of several models as one.

    Args:
        models: at least one, of one length.

    Raises:
        FederationError: FECG-360 vectors of different lengths.
    """
    sizes = {vector.shape for vector in models}
    if len(sizes) != 1:
        raise _not_models(f"{len(models)} models of {len(sizes)} different lengths", "models of one study")
    return np.concatenate(models)


def split_models(vector: NDArray[Any] | None, models: int) -> list[Vector]:
    """The reverse of `joined_models`; whether each fits the network is seen when it is loaded.

    Args:
        vector: that came with a task; None = no weights. models: how many the task names.

    Raises:
        FederationError: FECG-360 no vector, or one that cannot be divided into so many models.
    """
    length = 0 if vector is None else len(vector)
    if vector is None or not length or length % models:
        raise _not_models(f"{length} numbers", f"{models} model(s), one behind the other")
    return list(vector.reshape(models, -1))


def _not_models(found: str, expected: str) -> FederationError:
    return FederationError(
        "FECG-360",
        "weights of an explain task",
        found=found,
        expected=expected,
        fix="Both sides must run the same version of fedecg and the same study.",
    )


def _rounded(values: NDArray[np.float64]) -> list[float]:
    column: list[float] = np.round(values, GROUP_DECIMALS).ravel().tolist()
    return column


def _shaped(name: str, values: list[float], like: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) != like.size:
        raise FederationError(
            "FECG-503",
            f"{name} of a group",
            found=f"{len(values)} numbers",
            expected=f"{like.size} numbers",
        )
    return np.array(values, dtype=np.float64).reshape(like.shape)


def _parts(sums: FaithfulnessSums) -> dict[str, DataclassInstance]:
    parts: dict[str, DataclassInstance] = {
        "randomisation": sums.randomisation,
        "deletion": sums.deletion,
        "occlusion": sums.occlusion,
    }
    return parts if sums.stability is None else parts | {"stability": sums.stability}
