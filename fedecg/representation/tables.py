"""The document of `fedecg probe` as tables of text, for a terminal and for docs.

In:  `probe_document`'s dictionary. Out: rows of text. Called by `commands` and by docs/representations.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["apart_lines", "federated_rows", "main_rows", "retrieval_rows"]

Document = Mapping[str, Any]
NOTHING = "–"


def main_rows(document: Document) -> list[list[str]]:
    """Head and rows: macro AUC (95 % interval) of every probe and of zero-shot, a column a model; effective rank."""
    models = document["models"]
    rows = [["", *models]]
    for key in next(iter(models.values()))["probes"]:
        rows.append([_titled(key), *(_probe(one["probes"][key]) for one in models.values())])
    for key, title in (("zero-shot", "zero-shot"), ("zero-shot-left-out", "zero-shot, codes left out")):
        if any(one[key] for one in models.values()):
            rows.append([title, *(_interval(one[key]) for one in models.values())])
    if any(one["effective-rank"] for one in models.values()):
        rows.append(["effective rank", *(_rank(one["effective-rank"]) for one in models.values())])
    return rows


def federated_rows(document: Document) -> list[list[str]]:
    """Head and rows for the first model: what the sites' counts alone say, beside the pooled figure."""
    name, model = next(iter(document["models"].items()))
    rows = [[name, "pooled", "federated", "for certain within", "95 % interval", "classes"]]
    macros = {_titled(key): probe for key, probe in model["probes"].items()} | {
        "zero-shot": model["zero-shot"],
        "zero-shot, codes left out": model["zero-shot-left-out"],
    }
    for title, macro in macros.items():
        if macro and macro.get("macro-auc") is not None:
            counted = macro["federated"]
            rows.append(
                [
                    title,
                    _number(macro["macro-auc"]),
                    _number(counted["macro-auc"]),
                    f"{_number(counted['lower'])} to {_number(counted['upper'])}",
                    f"{_number(counted['ci-low'])} to {_number(counted['ci-high'])}",
                    str(len(macro["classes"])),
                ]
            )
    return rows


def retrieval_rows(document: Document) -> list[list[str]]:
    """Head and rows: recall at k, both ways, a column a model with a bank; without looking: by the usual codes."""
    found = {name: one["retrieval"] for name, one in document["models"].items() if one["retrieval"]}
    if not found:
        return []
    first = next(iter(found.values()))
    rows = [["", *found, "without looking"]]
    for way, title in (("ecg-to-statement", "ECG to statement"), ("statement-to-ecg", "statement to ECG")):
        for at, recall in enumerate(first[way]):
            figures = [_interval(one[way][at], "recall") for one in found.values()]
            rows.append([f"{title}, first {recall['k']}", *figures, _number(recall["guess"])])
    return rows


def apart_lines(document: Document) -> list[str]:
    """One line a probe of the first model: classes with too few test positives, and how many they have."""
    model = next(iter(document["models"].values()))
    macros = {_titled(key): probe for key, probe in model["probes"].items()} | {
        "zero-shot": model["zero-shot"] or {}
    }
    lines = []
    for title, macro in macros.items():
        few = [f"{one['name']} {one['positives']}" for one in macro.get("apart", []) if one["positives"]]
        if few:
            lines.append(f"{title}: {', '.join(few)}")
    return lines


def _titled(key: str) -> str:
    family, fraction = key.split("@")
    return f"{family}, {100 * float(fraction):g} % of labels"


def _probe(probe: Mapping[str, Any]) -> str:
    if probe["not-shown"]:
        return f"not shown ({probe['labelled']} labels)"
    return _interval(probe)


def _interval(figure: Mapping[str, Any] | None, name: str = "macro-auc") -> str:
    if not figure or figure[name] is None:
        return NOTHING
    if figure["ci-low"] is None:
        return _number(figure[name])
    return f"{_number(figure[name])} ({_number(figure['ci-low'])}–{_number(figure['ci-high'])})"


def _rank(ranks: Mapping[str, float] | None) -> str:
    return f"{ranks['embeddings']:.1f} of {ranks['targets']:.1f}" if ranks else NOTHING


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
