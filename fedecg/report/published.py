"""What others published for a recipe, to stand beside a study's own result: on other data, and said so.

In:  the name of a study. Out: a line of text, or none. For `findings.notes`, where a study is run by a recipe of
`configs/paper-*.toml`: a study that is called paper-hyp or paper-hyp-... shows the paper's figure for it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published", "published_note"]

SOURCE = "Chen et al., IEEE Trans. Big Data 11(3):948-960, 2025, doi 10.1109/TBDATA.2025.3536922"


@dataclass(frozen=True)
class Published:
    """A figure from a paper.

    Attributes:
        c_index: mean over folds and seeds. cohort: as the paper calls it. design: how it was measured.
    """

    c_index: float
    cohort: str
    design: str = "centralised, 2 folds x 5 seeds"


PUBLISHED = {"paper-hyp": Published(0.6349, "UKB-HYP"), "paper-mi": Published(0.5805, "UKB-MI")}


def published_note(study: str) -> str | None:
    """The line for a study, or None where its name is that of no recipe."""
    for name, one in PUBLISHED.items():
        if study == name or study.startswith(f"{name}-"):
            return (
                f"Published, other data: C-index {one.c_index:.4f} on {one.cohort} of UK Biobank ({one.design}; "
                f"{SOURCE}). "
                "Other patients, other follow-up: not a target, and no test of this study."
            )
    return None
