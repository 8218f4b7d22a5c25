"""What a finished study says: rows of the comparison, the result in a sentence, the notes below the table.

In:  the summary of a study, as in summary.json.
Out: plain rows and sentences. Called by `table`, `figures` and `html`, so that all three say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedecg.errors import some_of
from fedecg.report.published import published_note
from fedecg.report.sites import withheld_words
from fedecg.report.wording import c_index, count, difference, is_known, p_value, percent, printable

__all__ = [
    "CHANCE",
    "COLUMNS",
    "Estimate",
    "Row",
    "Summary",
    "comparison_rows",
    "endpoint",
    "is_simulated",
    "notes",
    "result_sentence",
    "validation_points",
]

Summary = Mapping[str, Any]

CHANCE = 0.5  # C-index of a score that knows nothing

# What a difference is taken against; the first two are always told, the others where they were made.
DIFFERENCES: dict[str, str] = {
    "federated-minus-pooled": "pooled",
    "federated-minus-local-mean": "local mean",
    "federated-minus-local-own": "each site's own model, on its own patients",
    "federated-minus-local-best": "local best",
    "federated-minus-age-sex": "age + sex",
}

# Order of every table and figure: the ceiling, the three ways to train, then the controls.
# "local, mean" is the mean of every site's model on all sites' patients; "own patients": each on those of its own site.
COLUMNS: dict[str, str] = {
    "true-hazard": "true hazard",
    "pooled": "pooled",
    "federated": "federated",
    "local-best": "local, best",
    "local-mean": "local, mean",
    "local-own": "local, own patients",
    "age-sex": "age + sex",
    "site-only": "site only",
}
OPTIONAL_COLUMNS = {  # shown where a run has them, below "federated"
    "finetuned": "fine-tuned at each site",
    "shared-norms": "federated, mean norms",
    "unseen-site": "unseen site",
    "random-encoder": "random encoder",
    "age-sex-hr-qrs": "age, sex, rate, QRS",
}


@dataclass(frozen=True)
class Estimate:
    """A C-index with its 95 % interval; None where it is not known."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """One column of the comparison, read for printing.

    Attributes:
        stratified: from pairs within a site; the primary measure.
        overall: from all pairs ("global C").
        share_kept: (C - 0.5) / (pooled C - 0.5), stratified; None where pooled is not clearly above chance.
    """

    key: str
    label: str
    stratified: Estimate
    overall: Estimate
    share_kept: float | None


def is_simulated(summary: Summary) -> bool:
    """True unless the outcomes are stated to be observed: silence must not pass for real outcomes."""
    return bool(summary.get("outcomes") != "observed")


def endpoint(summary: Summary) -> str:
    """What the event is, in words; runs that do not say it are about heart failure."""
    return printable(summary.get("endpoint") or "heart failure")


def comparison_rows(summary: Summary) -> tuple[Row, ...]:
    """All columns in the order of `COLUMNS`, optional ones if the run has them; null ones have empty estimates."""
    gain = _pooled_gain(summary)
    rows = []
    for key, label in _columns_of(summary).items():
        column = (summary.get("columns") or {}).get(key) or {}
        stratified = _estimate(column, "c-index-stratified", "stratified-ci-low", "stratified-ci-high")
        overall = _estimate(column, "c-index", "ci-low", "ci-high")
        rows.append(Row(key, label, stratified, overall, _share_kept(stratified.value, gain)))
    return tuple(rows)


def _columns_of(summary: Summary) -> dict[str, str]:
    """Key -> label of every column of a run."""
    present = summary.get("columns") or {}
    columns: dict[str, str] = {}
    for key, label in COLUMNS.items():
        columns[key] = label
        if key == "federated":
            columns |= {name: text for name, text in OPTIONAL_COLUMNS.items() if name in present}
    return columns


def result_sentence(summary: Summary) -> str:
    """Whether federation was worth it, from the stratified C-indices and the paired differences.

    Says so where there is no gain to keep, where the model is at chance, below the local models, where the interval of
    the difference includes zero, or where the best local model is not clearly below it.
    """
    federated = _stratified(summary, "federated")
    if federated is None:
        kept_back = summary.get("withheld-by")
        why = f": its evaluation was {withheld_words(kept_back)}" if kept_back else ""
        return f"No federated model was scored{why}, so this run cannot say whether federation was worth it."
    gap, alone = _trained_alone(federated, summary)
    parts = [_against_pooled(federated, summary) + _against_local(gap, alone) + "."]
    if (verdict := _verdict(federated, gap)) is not None:
        parts.append(verdict)
    if (best := _against_best_local(federated, summary)) is not None:
        parts.append(best)
    return " ".join(parts)


def notes(summary: Summary) -> tuple[str, ...]:
    """The lines below the table: size of the test part, paired differences, the federated estimate."""
    test = summary.get("test") or {}
    kept_back = summary.get("withheld-by") or []
    lines = [
        f"Test part: {count(test.get('patients'))} patients, {count(test.get('events'))} events, "
        f"{count(test.get('comparable-pairs'))} comparable pairs, "
        f"{count(test.get('comparable-pairs-stratified'))} of them within a site."
    ]
    if kept_back:
        known = f"{lines[0][:-1]}; the rest" if test.get("patients") is not None else "Test part:"
        lines = [f"{known} {withheld_words(kept_back)}."]
    entries = summary.get("differences") or {}
    for at, (key, label) in enumerate(DIFFERENCES.items()):
        if at < 2 or entries.get(key):
            gap = _difference(summary, key)
            text = difference(gap.value, gap.low, gap.high)
            lines.append(f"Federated minus {label}: {text}{_certainty(entries.get(key) or {})}.")
    lines += _from_sums(summary.get("federated-c-index") or {})
    lines.append(
        "Primary measure: stratified C (pairs within a site). Gain kept: (C - 0.5) / (pooled C - 0.5)."
    )
    if summary.get("status", "completed") != "completed":
        lines.append(
            f"Status: {printable(summary['status'])}; in some rounds not every site's reply was used."
        )
    lines += _of_alignment(summary.get("alignment") or {})
    if published := published_note(str(summary.get("study", ""))):
        lines.append(published)
    if is_simulated(summary):
        lines.append(
            "Outcomes are SIMULATED: the table compares ways of training and says nothing about patients."
        )
    return tuple(lines)


def _of_alignment(sites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sites that only reconstructed, and those whose embeddings had collapsed; nothing where all was well."""
    silent = [printable(site) for site, figures in sites.items() if figures.get("stated") == 0]
    collapsed = [printable(site) for site, figures in sites.items() if figures.get("collapsed")]
    lines = []
    if silent:
        lines.append(f"Alignment: {some_of(silent)} had neither codes nor reports and reconstructed only.")
    if collapsed:
        from fedecg.objectives import COLLAPSE_REMEDY  # with torch, which the dashboard does without

        lines.append(
            f"Alignment COLLAPSED at {some_of(collapsed)}: embeddings fill less than half of the directions of what "
            f"they were pulled to. Remedy: {COLLAPSE_REMEDY}."
        )
    return lines


def validation_points(rounds: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Survival rounds trained -> what validation said of the weights after them.

    A reply judges the weights that the site received, so a round speaks of the round before
    (`weights-evaluated`); the same weights may be judged twice, when a round is repeated: the last word counts.
    """
    return {
        _rounds_trained(entry): entry["validation"]
        for entry in rounds
        if entry.get("stage") in ("survival", "validation") and entry.get("validation")
    }


def _rounds_trained(entry: Mapping[str, Any]) -> int:
    trained = entry.get("weights-evaluated")
    return int(entry["round"] if trained is None else trained)


def _certainty(entry: Mapping[str, Any]) -> str:
    share, p = entry.get("share-below-zero"), entry.get("p-value")
    if is_known(share):
        return f"; below zero in {percent(share)} of the resamples"
    return f"; {p_value(p)}" if is_known(p) else ""


def _from_sums(federated: Mapping[str, Any]) -> list[str]:
    if not is_known(federated.get("global")):
        return []
    interval = _estimate(federated, "global", "ci-low", "ci-high")
    text = (
        f"Federated model, from sums alone: global C {c_index(interval.value, interval.low, interval.high)}"
    )
    if is_known(federated.get("lower")) and is_known(federated.get("upper")):
        text += f", guaranteed to lie in {c_index(federated['lower'])}–{c_index(federated['upper'])}"
    if is_known(federated.get("pooled-reference")):
        text += f"; {c_index(federated['pooled-reference'])} from raw predictions"
    lines = [text + "."]
    if federated.get("few-events"):
        lines.append("Too few events: the intervals are narrower than they should be.")
    return lines


def _against_pooled(federated: float, summary: Summary) -> str:
    pooled = _stratified(summary, "pooled")
    if federated <= CHANCE:
        return f"Federated training did not beat chance (stratified C-index {c_index(federated)})"
    share = _share_kept(federated, _pooled_gain(summary))
    if share is None:
        why = "there is no pooled model to compare with"
        if pooled is not None:
            chance = "is not clearly above chance" if pooled > CHANCE else "did not beat chance"
            why = f"pooled training {chance} ({c_index(pooled)})"
        return f"Federated training reached a stratified C-index of {c_index(federated)} ({why})"
    verb = "reached" if round(100 * share) > 100 else "kept"
    return f"Federated training {verb} {percent(share)} of pooled training's gain over chance"


def _trained_alone(federated: float, summary: Summary) -> tuple[Estimate, str]:
    """Difference to the models that were trained alone, and their name.

    What a site has without the others is its own model for its own patients; on everybody's it would look worse.
    """
    for key, words in (
        ("local-own", "each site's own model on its own patients"),
        ("local-mean", "the mean local model"),
    ):
        gap, local = _difference(summary, f"federated-minus-{key}"), _stratified(summary, key)
        if gap.value is None and local is not None:
            gap = Estimate(federated - local, None, None)
        if gap.value is not None:
            return gap, words
    return Estimate(None, None, None), ""


def _against_local(gap: Estimate, alone: str) -> str:
    if gap.value is None:
        return "; there are no local models to compare with"
    size = f"{abs(gap.value):.3f}"
    if float(size) == 0.0:
        return f" and was level with {alone}" + _interval(gap)
    if gap.value > 0:
        return f" and was {size} above {alone}" + _interval(gap)
    return f" and was {size} below {alone}" + _interval(gap)


def _against_best_local(federated: float, summary: Summary) -> str | None:
    """The site that would do as well alone must be told; None where the best local model is clearly below."""
    best = _stratified(summary, "local-best")
    gap = _difference(summary, "federated-minus-local-best")
    if best is None or (gap.low is not None and gap.low > 0):
        return None
    told = (
        f" (federated minus local best {difference(gap.value, gap.low, gap.high)})"
        if gap.value is not None
        else ""
    )
    if gap.high is not None and gap.high < 0:
        return f"The best local model did better{told}."
    if gap.low is not None:
        return f"The best local model was not clearly below it{told}."
    return None if best < federated else f"The best local model, {c_index(best)}, was not below it."


def _interval(gap: Estimate) -> str:
    text = difference(gap.value, gap.low, gap.high)
    return f" ({text[text.index('95 %') :]}" if "95 %" in text else ""


def _verdict(federated: float, gap: Estimate) -> str | None:
    if gap.low is None or gap.high is None:
        return None
    if gap.high < 0:
        return "On this test part, training alone did better."
    if gap.low <= 0:
        return "The interval includes zero: this test part does not settle whether it beats training alone."
    if federated <= CHANCE:
        return None
    return "On this test part, training together beat the average of training alone."


def _pooled_gain(summary: Summary) -> float | None:
    """Pooled training's gain over chance; None where even its interval's lower end does not beat chance."""
    pooled = _stratified(summary, "pooled")
    low = ((summary.get("columns") or {}).get("pooled") or {}).get("stratified-ci-low")
    if pooled is None or min(pooled, low if is_known(low) else pooled) <= CHANCE:
        return None
    return pooled - CHANCE


def _share_kept(value: float | None, pooled_gain: float | None) -> float | None:
    return None if value is None or pooled_gain is None else (value - CHANCE) / pooled_gain


def _stratified(summary: Summary, key: str) -> float | None:
    column = (summary.get("columns") or {}).get(key) or {}
    value = column.get("c-index-stratified")
    return value if is_known(value) else None


def _difference(summary: Summary, key: str) -> Estimate:
    entry = (summary.get("differences") or {}).get(key) or {}
    return _estimate(entry, "difference", "ci-low", "ci-high")


def _estimate(entry: Mapping[str, Any], value: str, low: str, high: str) -> Estimate:
    numbers = [entry.get(name) for name in (value, low, high)]
    return Estimate(*(number if is_known(number) else None for number in numbers))
