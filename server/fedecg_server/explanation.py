"""Is the model's attention true? The check of what the sites answer; every site gets the same question.

In:  the model, replies. Out: checked sums. Called by `study` once, with the chosen weights.
"""

from __future__ import annotations

from fedecg.config import StudySettings
from fedecg.explanation import FaithfulnessSums
from fedecg.explanation.checks import check_faithfulness_sums
from fedecg.explanation.documents import ExplainReply
from fedecg.federation.messages import Part
from fedecg_server.consortium import Member

__all__ = ["checked_explanation"]


def checked_explanation(
    settings: StudySettings,
    part: Part,
    nobody: FaithfulnessSums,
    member: Member,
    reply: ExplainReply,
) -> FaithfulnessSums:
    """A site's sums, in the shapes of the model's and free of contradictions.

    Args:
        settings: the study.
        part: of the cohorts, that was asked for.
        nobody: `sums_of_nobody` of the model.
        member: the site, which joined with so many patients.
        reply: what it answers.

    Raises:
        FederationError: FECG-503, FECG-515, FECG-527.
    """
    sums = reply.sums(nobody)
    joined = member.joined.parts.get(part)
    patients = 0 if joined is None else joined.patients
    check_faithfulness_sums(sums, member.joined.site, min(patients, settings.evaluation.explain_ecgs))
    return sums
