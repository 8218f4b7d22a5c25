"""One sentence a code, for a language model to embed: "Category: description" in full words.

In:  `Statement`s. Out: prompts, and their sha256 for a bank's provenance. Called by `fedecg.text.build`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from fedecg.text.statements import Statement

__all__ = ["prompt", "prompts", "prompts_sha256"]

# Categories that speak of the coding standard, or of a thing and its opposite, instead of the heart.
CATEGORIES = {
    "Normal/abnormal": "Overall assessment",
    "Atrial statements": "Atria",
    "Basic roots for coding ST-T changes and abnormalities": "ST-T changes",
    "other ST-T descriptive statements": "ST-T changes",
    "physiopathological nature of ST-T changes": "Cause of ST-T changes",
    "Other QRS morphology descriptive statements": "QRS morphology",
    "Statements related to ectopic rhythm abnormalities": "Ectopic rhythm",
    "Statements related to impulse formation (abnormalities)": "Impulse formation",
}

# General language models do not know these abbreviations: for all-MiniLM-L6-v2 the cosine of "left bundle branch
# block" and "LBBB" is 0.1. Applied in this order.
EXPANSIONS = (
    (r"\bST-T\b", "ST segment and T wave"),
    (r"\bST(?= (changes|depression|elevation))", "ST segment"),
    (r"\bT(?=[ -]wave)|\bT(?= abnormalities)", "T wave"),
    (r"T wave[ -]wave", "T wave"),
    (r"\bQRS\b", "QRS complex"),
    (r"\bQT-interval\b", "QT interval (ventricular depolarization and repolarization)"),
    (r"\bPR interval\b", "PR interval (atrioventricular conduction)"),
    (r"\bAV[- ]", "atrioventricular "),
    (r"\bSV or Ventricular\b", "supraventricular or ventricular"),
    (r"\bECG\b", "electrocardiogram"),
    (r"^\(complete\)", "complete"),
    (r"complex\(es\)", "complexes"),
    (r"/", " or "),
)


def prompt(statement: Statement) -> str:
    """'Category: description' of one statement, abbreviations expanded.

    Source: the form is that of Chen et al. 2025 (doi 10.1109/TBDATA.2025.3536922); the expansions are ours.
    """
    category = _in_full(CATEGORIES.get(statement.category, statement.category))
    return f"{category[0].upper()}{category[1:]}: {_in_full(statement.description)}"


def prompts(statements: Iterable[Statement]) -> dict[str, str]:
    """Prompt of every statement by code, in the given order."""
    return {statement.code: prompt(statement) for statement in statements}


def prompts_sha256(prompt_of: Mapping[str, str]) -> str:
    """Hash of codes and prompts in their order (of the JSON list of pairs, UTF-8, no spaces)."""
    text = json.dumps(list(prompt_of.items()), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _in_full(words: str) -> str:
    for pattern, replacement in EXPANSIONS:
        words = re.sub(pattern, replacement, words)
    return words
