"""The reporting checklists TRIPOD+AI and TRIPOD-Cluster, each item answered from the run or left to the authors.

In:  `Study`. Out: Markdown. Called by `model_card`.

Source: Collins et al. 2024, BMJ 385:e078378, doi 10.1136/bmj-2023-078378; Debray et al. 2023, BMJ 380:e071018,
    doi 10.1136/bmj-2022-071018.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedecg.evaluation.intervals import FEW_EVENTS
from fedecg.report.assessment import evaluation_lines, site_notes
from fedecg.report.checklists import TRIPOD_AI, TRIPOD_CLUSTER, Item
from fedecg.report.disclosure import NOTHING_WITHHELD, WITHHELD, thresholds_of
from fedecg.report.findings import endpoint, is_simulated, result_sentence
from fedecg.report.grid import Grid
from fedecg.report.markdown import escaped, table_lines
from fedecg.report.study_words import (
    Study,
    concordance_line,
    data_lines,
    evaluation_part_lines,
    limit_lines,
    outcome_line,
    part_line,
    preparation_line,
    refused_text,
    training_lines,
)
from fedecg.report.subgroups import subgroup_grid
from fedecg.report.wording import count, years

__all__ = ["answers", "tripod_markdown"]

HEAD = (
    "Items are numbered as published and put in words of our own; where it counts, read the originals. "
    '"Answered" is what the run itself says; "open" is what no run can know. A filled list does not make a study sound.'
)


def tripod_markdown(study: Study) -> str:
    """Both checklists as Markdown; ends with a newline."""
    told = answers(study)
    label = " (outcomes SIMULATED)" if is_simulated(study.summary) else ""
    lines = [
        f"# TRIPOD+AI and TRIPOD-Cluster: {escaped(str(study.summary.get('study', 'study')))}{label}",
        "",
        HEAD,
        *("", "## TRIPOD+AI (Collins et al. 2024, doi 10.1136/bmj-2023-078378)", ""),
        *table_lines(_grid(TRIPOD_AI, told)),
        *("", "## TRIPOD-Cluster (Debray et al. 2023, doi 10.1136/bmj-2022-071018); a cluster is a site", ""),
        *table_lines(_grid(TRIPOD_CLUSTER, told)),
    ]
    return "\n".join(lines) + "\n"


def answers(study: Study) -> dict[str, str]:
    """Name -> what the run says; the names are those of `checklists`."""
    return _on_data(study) | _on_methods(study) | _on_results(study)


def _grid(items: Sequence[Item], told: dict[str, str]) -> Grid:
    return Grid(
        header=("item", "asks for", "answer"),
        rows=tuple((item.number, item.asks, _answer(item, told)) for item in items),
        numeric=(False, False, False),
    )


def _answer(item: Item, told: dict[str, str]) -> str:
    parts = [f"answered from the run: {told[item.answer]}"] if item.answer else []
    if item.left:
        parts.append(f"open: the authors of a study must state {item.left}.")
    return " ".join(parts)


def _on_data(study: Study) -> dict[str, str]:
    summary, settings = study.summary, study.settings
    refused = refused_text(study)
    sites, outcomes = summary.get("sites") or [], outcome_line(study)
    horizons = ", ".join(f"{horizon:g}" for horizon in settings.evaluation.horizons_years)
    simulation = thresholds_of(summary) == NOTHING_WITHHELD
    made_up = simulation or (is_simulated(summary) and summary.get("outcomes") is not None)
    source = (
        f"a simulation on data of the source {settings.data.source}"
        if made_up
        else "cohorts held by the sites"
    )
    return {
        "objectives": "development, and evaluation on held-out patients of the same sites; whether training together "
        "keeps what pooled training gains.",
        "source": f"{source}. {outcomes}",
        "sites": f"{count(len(sites))} sites; patients and events of each are in report.html.",
        "index": "one index ECG a patient.",
        "preparation": f"{preparation_line(study)} The same quality rules everywhere; {refused}.",
        "outcome": f"time to {endpoint(summary)} from the index ECG; risks by {horizons} years. {outcomes}",
        "predictors": "the ECG's waveform alone; age, sex and history are no input.",
        "measured": "12 leads of the index ECG, at baseline, before any event.",
        "judgement": "none at prediction; reports or codes, which are judged, enter in alignment training only.",
        "size": _size(study),
        "missing": f"a recording that cannot be used is left out ({refused}); no outcome is imputed; "
        "a patient without age or sex counts in no such subgroup.",
        "flow": " ".join((*data_lines(study), _follow_up(study))).strip(),
        "difference": "train, validation and test patients come from the same sites under the same definitions.",
    }


def _on_methods(study: Study) -> dict[str, str]:
    settings = study.settings
    batches = (
        "mini-batches are stratified by event"
        if settings.survival.loss == "cox-batch"
        else "none; censoring is handled by the survival loss"
    )
    shared = settings.survival.loss == "grouped" or (
        settings.survival.loss == "cox-pooled" and settings.survival.baseline == "shared"
    )
    baseline = (
        "one baseline hazard for all sites" if shared else "risk sets or a baseline hazard of each site's own"
    )
    chosen = (
        "chosen on validation"
        if study.settings.validation_chooses
        else "not chosen but taken from the last round"
    )
    return {
        "partition": f"{part_line(study)} Weights are trained on train, {chosen}, judged once on "
        f"{study.assessment['part'] if study.assessment else 'test'}.",
        "form": f"{preparation_line(study)} The network learns the functional form.",
        "building": " ".join(training_lines(study)),
        "clusters": f"training with {baseline}; performance by pairs within sites (stratified C), by site, and by a "
        "random-effects summary (REML, Hartung-Knapp) with a prediction interval; censoring curves site by site.",
        "measures": "stratified and global C with bounds, Uno's C, AUC by horizon, O/E, calibration slope and groups, "
        "Brier score, net benefit, survival by risk group with log-rank test; models of a simulation are compared by "
        "paired bootstrap.",
        "updating": "none; the model is as trained. fedecg evaluate --recalibrate makes a copy for one site.",
        "formula": "risk by t = 1 - exp(-H0(t) exp(log hazard)), H0 in model.json; fedecg predict computes it.",
        "imbalance": f"{batches}; no recalibration followed.",
        "fairness": "C and O/E by sex and age band, with disclosure control; training takes no account of them.",
        "output": "a log hazard, and a risk by horizon with an interval; no classes. The groups of the survival curves "
        "are cut at public quantiles and are no thresholds for care.",
        "lock": "the settings that the run was made with are in study.toml, their sha256 in model_card.md.",
        "code": f"code fingerprint {study.summary.get('code-fingerprint') or 'not stated'}.",
        "input": "fedecg predict gives a recording that cannot be used a code and no risk, and warns of quality.",
        "excluded": "none by the run; sites whose replies could not be used are listed by round in report.html.",
        "model": "weights and baseline hazard in this folder, for fedecg predict and fedecg export; sha256 of the "
        f"weights {study.model.get('weights-sha256', 'not stated')}.",
    }


def _on_results(study: Study) -> dict[str, str]:
    return {
        "performance": f"{' '.join(evaluation_part_lines(study))} {_subgroup_text(study)}",
        "heterogeneity": " ".join(site_notes(study.assessment, study.disclosure))
        if study.assessment
        else concordance_line(study),
        "subgroups": _subgroup_text(study),
        "result": result_sentence(study.summary),
        "limits": " ".join(limit_lines(study)),
    }


def _size(study: Study) -> str:
    text = f"{part_line(study)} No calculation beforehand is part of the run."
    if study.assessment is None:
        return text
    few = f" Fewer than {FEW_EVENTS} events: intervals are too narrow." if _few(study) else ""
    return f"{text} {evaluation_lines(study.assessment, study.disclosure)[-1]}{few}"


def _few(study: Study) -> bool:
    return study.assessment is not None and bool(study.assessment["concordance"]["few-events"])


def _follow_up(study: Study) -> str:
    if study.assessment is None:
        return ""
    _, median, _ = study.assessment["follow-up-days"]
    return f"Median follow-up of the {study.assessment['part']} part: {years(median)} years (reverse Kaplan-Meier)."


def _subgroup_text(study: Study) -> str:
    if study.assessment is None or not study.assessment["subgroups"]:
        return "No figures by sex or age."
    told = [
        f"{name}: {'withheld' if c == WITHHELD else f'C {c}, O/E {ratio}'}"
        for name, _, _, c, ratio in subgroup_grid(study.assessment, study.thresholds).rows
    ]
    return f"By subgroup: {'; '.join(told)}."
