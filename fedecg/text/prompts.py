"""One sentence a code, for a language model to embed: "Category: description" in full words.

In:  `Statement`s, of any table; `abbreviations.csv` beside this file. Out: prompts, and their sha256 for a bank's
     provenance. Called by `fedecg.text.build`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

from fedecg.text.statements import Statement

__all__ = ["prompt", "prompts", "prompts_sha256", "unexpanded"]

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
# What is left of the ECG's own letters after the expansion, and the names of leads; the rest looks abbreviated.
LETTERS = re.compile(r"QRS|ST|QT|PR|QS|RS|I{1,3}|V\d|aV[RLF]|[PQRSTUJ]")
CAPITALS = re.compile(r"\b[A-Za-z]*[A-Z][A-Z0-9]+\b|\b[A-Z]\b")


def prompt(statement: Statement) -> str:
    """'Category: description' of one statement, or the description alone; abbreviations expanded.

    Source: the form is that of Chen et al. 2025 (doi 10.1109/TBDATA.2025.3536922); the expansions are ours.
    """
    category = _in_full(CATEGORIES.get(statement.category, statement.category))
    description = _in_full(statement.description)
    if not category:
        return f"{description[0].upper()}{description[1:]}"
    return f"{category[0].upper()}{category[1:]}: {description}"


def prompts(statements: Iterable[Statement]) -> dict[str, str]:
    """Prompt of every statement by code, in the given order."""
    return {statement.code: prompt(statement) for statement in statements}


def prompts_sha256(prompt_of: Mapping[str, str]) -> str:
    """Hash of codes and prompts in their order (of the JSON list of pairs, UTF-8, no spaces)."""
    text = json.dumps(list(prompt_of.items()), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unexpanded(prompt_of: Mapping[str, str]) -> list[str]:
    """Words in capitals that the list of abbreviations does not know, each once, in the order of the alphabet."""
    words = {word for text in prompt_of.values() for word in CAPITALS.findall(text)}
    return sorted(word for word in words if not LETTERS.fullmatch(word))


@cache
def _expansions() -> tuple[tuple[re.Pattern[str], str], ...]:
    lines = files("fedecg.text").joinpath("abbreviations.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(
        (re.compile(row["written"], re.IGNORECASE if row["case"] == "any" else 0), row["meaning"])
        for row in rows
    )


def _in_full(words: str) -> str:
    for pattern, meaning in _expansions():
        words = pattern.sub(meaning, words)
    once = re.sub(r"\b(\w.*?) \(\1\)", r"\1", words)  # "atrial fibrillation (AF)" says it twice by now
    return re.sub(r"\s+", " ", once).strip()
