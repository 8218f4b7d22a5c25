"""Is the model's attention true? The check of what the sites answer; every site gets the same question.

In:  the model, replies. Out: checked sums, of the tests and of groups of patients. Called by `study` once, with the
chosen weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedecg.config import StudySettings
from fedecg.evaluation import risk_grid
from fedecg.explanation import FaithfulnessSums
from fedecg.explanation.checks import check_faithfulness_sums, check_group_sums
from fedecg.explanation.documents import ExplainReply, known_groups
from fedecg.explanation.groups import GroupSums, nobodys_group
from fedecg.federation.documents import Part, RiskMoments
from fedecg.federation.hazard import pooled_moments
from fedecg.text import Bank
from fedecg_server.attendance import Member

__all__ = ["Explained", "checked_explanation", "risk_cuts"]

Explained = tuple[FaithfulnessSums, dict[str, GroupSums]]


def risk_cuts(settings: StudySettings, moments: Sequence[RiskMoments]) -> list[float]:
    """Between low and high risk: the outer cuts of the risk groups whose survival is shown.

    Args:
        settings: the study.
        moments: of the log hazard on every site's validation part.
    """
    cuts: list[float] = risk_grid(*pooled_moments(moments), settings.evaluation.risk_groups).tolist()
    return cuts


def checked_explanation(
    settings: StudySettings,
    bank: Bank,
    part: Part,
    nobody: FaithfulnessSums,
    member: Member,
    reply: ExplainReply,
) -> Explained:
    """A site's sums, in the shapes of the model's and free of contradictions.

    Args:
        settings: the study.
        bank: whose codes are findings.
        part: of the cohorts, that was asked for.
        nobody: `sums_of_nobody` of the models.
        member: the site, which joined with so many patients.
        reply: what it answers.

    Raises:
        FederationError: FECG-358, FECG-503, FECG-515, FECG-527.
    """
    site, joined = member.joined.site, member.joined.parts.get(part)
    patients = 0 if joined is None else joined.patients
    sums = reply.sums(nobody)
    check_faithfulness_sums(sums, site, min(patients, settings.evaluation.explain_ecgs))
    signals = settings.signals
    nobodys = nobodys_group(signals.samples, float(signals.rate_hz))
    groups = {name: document.sums(nobodys) for name, document in reply.groups.items()}
    check_group_sums(groups, known_groups(bank.codes), site, patients)
    return sums, groups
