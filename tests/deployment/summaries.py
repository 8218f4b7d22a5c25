"""summary.json of a deployment against that of the same study in one process, key by key.

In:  both documents, baselines.json of the run in one process. Out: nothing, or an AssertionError that names the key.
Used by test_end_to_end.py. What may differ is listed here with its reason; whatever is not listed must be equal.
"""

from __future__ import annotations

from typing import Any

__all__ = ["compare_summaries"]

Summary = dict[str, Any]

# What only a simulation knows, since it alone made or saw the patients: null in a deployment (fedecg.report.summary).
NULL = {
    "differences",  # a paired bootstrap over patients of all sites, side by side
    "endpoint",  # of the data set
    "folds",  # of the data set
    "local-models-left-out",  # codes of its own columns; a deployment has them in baselines.json, by site
    "notes",  # of the data set
    "outcomes",  # "simulated": nobody tells a coordinator
    "quality",  # of the store that all virtual sites share
    "refused-recordings",  # the same
    "starts-sha256",  # of model folders that its settings name, for a grid to know its cells by
}
NULL_COLUMNS = {"local-best", "local-mean", "pooled", "site-only", "true-hazard"}
OF_THE_MACHINE = {
    "bytes-per-round",  # a lock with keys and names, and a ledger of what was accepted, travel with real tasks
    "code-fingerprint",  # of all code that has run: there that of the simulation, too; the federation's is compared
    "seconds",  # wall time, and of columns that only a simulation trains
}
BY_PARTS = {"columns", "federated-c-index", "sites", "test"}  # compared below
FROM_THE_ASSESSMENT = {  # key of the federated column -> of assessment.concordance
    "c-index": "c-index",
    "ci-low": "ci-low",
    "ci-high": "ci-high",
    "c-index-stratified": "stratified",
    "stratified-ci-low": "stratified-ci-low",
    "stratified-ci-high": "stratified-ci-high",
}


def compare_summaries(deployed: Summary, simulated: Summary, baselines: Summary) -> None:
    """Whether a deployment has come to the same summary.

    Args:
        deployed, simulated: summary.json.
        baselines: baselines.json of the run in one process.
    """
    assert deployed.keys() == simulated.keys()
    assert {key for key, value in deployed.items() if value is None} == NULL | {
        key for key, value in simulated.items() if value is None
    }
    for key in sorted(simulated.keys() - NULL - OF_THE_MACHINE - BY_PARTS):
        assert deployed[key] == simulated[key], key
    _compare_sites(deployed["sites"], simulated["sites"])
    _compare_columns(deployed, simulated)
    _compare_own(deployed, baselines)
    _compare_test(deployed, simulated)


def _compare_sites(deployed: list[Summary], simulated: list[Summary]) -> None:
    """What sites say of themselves; a simulation sees the mix of their labels besides."""
    assert [site["name"] for site in deployed] == [site["name"] for site in simulated]
    for ours, theirs in zip(deployed, simulated, strict=True):
        assert ours.keys() == {"name", "patients", "events", "parts"}
        for key, value in ours.items():
            assert value == theirs[key], f"{ours['name']}: {key}"


def _compare_columns(deployed: Summary, simulated: Summary) -> None:
    """The federated column, and a site's own columns as its `baselines` phase has them, to the bit.

    A simulation has the federated column of raw scores besides: its C lies within the bounds that the counts give.
    """
    ours, theirs = deployed["columns"], simulated["columns"]
    assert {name for name, column in ours.items() if column is None} == NULL_COLUMNS
    assert NULL_COLUMNS | {"federated", "local-own", "age-sex"} == set(ours) == set(theirs)
    pairs = simulated["assessment"]["concordance"]
    assert ours["federated"] == {key: pairs[name] for key, name in FROM_THE_ASSESSMENT.items()}
    assert pairs["lower"] <= theirs["federated"]["c-index"] <= pairs["upper"]


def _compare_own(deployed: Summary, baselines: Summary) -> None:
    """Each site's own model, and age and sex, on its own patients; scores of different models do not compare."""
    for name, entry in (("local-own", baselines["local"]), ("age-sex", baselines["age-sex"])):
        within = {f"stratified-{end}": entry[f"stratified-{end}"] for end in ("ci-low", "ci-high")}
        over_all = dict.fromkeys(("c-index", "ci-low", "ci-high"))
        column = {"c-index-stratified": entry["stratified"], **within, **over_all}
        assert deployed["columns"][name] == column, name


def _compare_test(deployed: Summary, simulated: Summary) -> None:
    """Federated figures are the same to the bit; pairs are those of the grid, without those across sites."""
    figures = dict(simulated["federated-c-index"])
    del figures["pooled-reference"]  # of raw scores, which no coordinator has
    assert deployed["federated-c-index"] == figures
    pairs = simulated["assessment"]["concordance"]
    assert deployed["test"] == {
        "patients": simulated["test"]["patients"],
        "events": simulated["test"]["events"],
        "comparable-pairs": None,
        "comparable-pairs-stratified": pairs["comparable-within"],
    }
    assert pairs["comparable-within"] <= simulated["test"]["comparable-pairs-stratified"]
