"""What a bank tells apart: similarities, neighbours, effective rank, and the check of opposites.

In:  a bank; `opposites.csv` beside this file. Out: numbers and rows. Called by `fedecg bank`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from fedecg.text.bank import Bank

__all__ = ["APART_BELOW", "Pair", "categories", "effective_rank", "neighbours", "opposites", "similarities"]

APART_BELOW = 0.9


@dataclass(frozen=True)
class Pair:
    """Two statements of opposite meaning and the cosine of their vectors.

    Attributes:
        one, other: codes, in the order of the bank. cosine: -1..1.
    """

    one: str
    other: str
    cosine: float

    @property
    def apart(self) -> bool:
        """Whether the bank tells the two apart."""
        return self.cosine < APART_BELOW


def similarities(bank: Bank) -> NDArray[np.float64]:
    """(K, K) cosines of the bank's vectors; these are centred over the bank's statements as they stand in it."""
    vectors = bank.vectors.astype(np.float64)
    return vectors @ vectors.T


def neighbours(bank: Bank, code: str, count: int) -> list[tuple[str, float]]:
    """The nearest statements of a code's, nearest first: (code, cosine)."""
    row = bank.codes.index(code)
    vectors = bank.vectors.astype(np.float64)
    cosine = vectors @ vectors[row]
    order = [int(index) for index in np.argsort(-cosine, kind="stable") if index != row]
    return [(bank.codes[index], float(cosine[index])) for index in order[:count]]


def categories(bank: Bank) -> list[str]:
    """Category of each statement, as its prompt begins with it ("Category: description"), or ""."""
    prompt_of = bank.provenance.get("prompts", {})
    parts = [str(prompt_of.get(code, "")).partition(": ") for code in bank.codes]
    return [category if colon else "" for category, colon, _ in parts]


def effective_rank(vectors: NDArray[np.float32]) -> float:
    """How many directions (N, D) vectors fill: exp of the entropy of their squared singular values, centred.

    Returns:
        1 (all on one line) to min(N - 1, D); 0 where they do not differ.

    Source: Roy & Vetterli 2007, EUSIPCO; with squared singular values, as the collapse check of design 4 has it.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    power = np.linalg.svd(centred, compute_uv=False) ** 2
    if power.sum() == 0:
        return 0.0
    share = power[power > 0] / power.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def opposites(bank: Bank) -> list[Pair]:
    """Every pair of the bank's statements with opposite meaning, the least told apart first.

    Pairs are those of `opposites.csv` whose codes the bank has, and, in any bank whose provenance has its prompts
    (English), those whose prompts differ in nothing but a word and its opposite.
    """
    place = {code: index for index, code in enumerate(bank.codes)}
    found = {tuple(sorted((place[one], place[other]))) for one, other in _pairs_of_codes(place)}
    prompt_of = bank.provenance.get("prompts", {})
    found |= {tuple(sorted((place[one], place[other]))) for one, other in _pairs_of_words(prompt_of, place)}
    cosine = similarities(bank)
    pairs = [Pair(bank.codes[one], bank.codes[other], float(cosine[one, other])) for one, other in found]
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.one, pair.other))


@cache
def _listed() -> tuple[tuple[str, str, str], ...]:
    lines = files("fedecg.text").joinpath("opposites.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple((row["list"], row["one"], row["other"]) for row in rows)


def _pairs_of_codes(place: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for kind, one, other in _listed():
        if kind == "words" or one not in place:
            continue
        if other == "*":
            yield from ((one, code) for code in place if code != one)
        elif other in place:
            yield one, other


def _pairs_of_words(prompt_of: Mapping[str, str], place: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    code_of: dict[str, list[str]] = {}
    for code in place:
        code_of.setdefault(_description(prompt_of.get(code, "")), []).append(code)
    for kind, one, other in _listed():
        if kind != "words":
            continue
        word = re.compile(rf"(?<!not )\b{one}\b")
        for said, codes in code_of.items():
            turned = word.sub(other, said)
            if turned != said and turned in code_of:
                yield from ((code, opposite) for code in codes for opposite in code_of[turned])


def _description(prompt: str) -> str:
    return prompt.split(": ", 1)[-1].casefold()
