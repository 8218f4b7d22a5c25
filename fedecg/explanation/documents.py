"""The tests of attention as documents: what the coordinator asks of every site, what each sends back.

In:  `FaithfulnessSums`. Out: documents that `fedecg.federation.messages` packs, and back. Called by both sides.
They say whether attention is true over all ECGs of a site: no ECG, no map and no number of a single patient is in them,
and their size does not depend on the number of patients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedecg.config import Section
from fedecg.errors import FederationError
from fedecg.evaluation import Concordance
from fedecg.explanation.faithfulness import FaithfulnessSums, faithfulness_sums
from fedecg.federation.arrays import flat_arrays, read_arrays
from fedecg.federation.messages import Count, Part, SignedSum, Task
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["VERSION", "ExplainReply", "ExplainTask", "sums_of_nobody"]

VERSION: Literal[1] = 1  # of the sums
# Both sides know the seed, the steps to hide and the models; pair counts travel as `pairs`.
LEFT_OUT = {"seed", "counts", "models", "plain", "hidden"}
SIGNED = {
    "randomisation.similarity",
    "deletion.area",
    "occlusion.shift",
    "occlusion.agreement",
    "stability.time",
    "stability.leads",
}
PAIR_SHAPE = (1 + LEADS, 3)


class ExplainTask(Task):
    """Test the attention of given weights on one part of each site's cohort; the settings say on how many ECGs."""

    part: Part


class ExplainReply(Section):
    """A site's sums: pair counts of its concordances, and every other array, flat, under `part.field`.

    Attributes:
        pairs: (13, 3) flattened: concordant, discordant, tied; of the log hazard as it is, then with each lead hidden.
    """

    site: str
    version: Literal[1]
    pairs: list[Count]
    arrays: dict[str, list[SignedSum]]

    @staticmethod
    def of(site: str, sums: FaithfulnessSums) -> ExplainReply:
        """From the type of `faithfulness`."""
        concordances = (sums.occlusion.plain, *sums.occlusion.hidden)
        return ExplainReply(
            site=site,
            version=VERSION,
            pairs=[n for one in concordances for n in (one.concordant, one.discordant, one.tied_risk)],
            arrays=flat_arrays(_parts(sums), LEFT_OUT),
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


def sums_of_nobody(network: Network, seed: int) -> FaithfulnessSums:
    """The sums of a site without patients: shapes, and what is public.

    Args:
        network: the model that is tested. seed: of the study.
    """
    nobody = np.zeros((0, LEADS, network.samples), dtype=np.float32)
    return faithfulness_sums(network, nobody, np.zeros(0), np.zeros(0), seed)


def _parts(sums: FaithfulnessSums) -> dict[str, DataclassInstance]:
    parts: dict[str, DataclassInstance] = {
        "randomisation": sums.randomisation,
        "deletion": sums.deletion,
        "occlusion": sums.occlusion,
    }
    return parts if sums.stability is None else parts | {"stability": sums.stability}
