"""The report of a study: one HTML file that needs nothing else, for screen, phone and A4 paper.

In:  the summary, the rounds, the assessment, the explanation and the settings of a study, as in its files.
Out: the parts of the page; report.html, the same bytes for the same input.
Called by the simulation's runner and by `fedecg report`.

Every text passes Jinja's autoescape; figures are SVG inside `img` (scripts in them could not run), each with its data
as CSV in a link that downloads it, and a content security policy forbids loading anything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from fedecg.config import StudySettings
from fedecg.files import write_whole
from fedecg.report.assessment import (
    Assessment,
    evaluation_lines,
    figure_horizon,
    horizon_grid,
    horizon_notes,
    site_grid,
    site_notes,
)
from fedecg.report.assessment_figures import calibration_figure, survival_figure
from fedecg.report.assessment_words import calibration_words, subgroup_words, survival_words
from fedecg.report.decision import decision_figure, decision_shown, decision_words
from fedecg.report.disclosure import NOTHING_WITHHELD, Thresholds, thresholds_of
from fedecg.report.faithfulness_report import faithfulness_section
from fedecg.report.figure_data import (
    calibration_csv,
    comparison_csv,
    csv_link,
    decision_csv,
    rounds_csv,
    sites_csv,
    subgroups_csv,
    survival_csv,
)
from fedecg.report.figures import comparison_figure, figure_svg, rounds_figure, sites_figure
from fedecg.report.findings import Summary, comparison_rows, endpoint, is_simulated, notes, result_sentence
from fedecg.report.privacy_section import privacy_section
from fedecg.report.settings_table import settings_grid, settings_notes
from fedecg.report.sites import SiteDisclosure, evaluated, of_study, withheld_by, withheld_words
from fedecg.report.subgroup_figure import subgroup_figure
from fedecg.report.subgroups import subgroup_grid, subgroup_notes
from fedecg.report.table import comparison_grid, partition_grid, rounds_grid
from fedecg.report.wording import DASH, byte_size, c_index, count, duration, is_known, years

__all__ = ["page_html", "report_html", "report_page", "write_report"]

# Pictures that are left out where no horizon has figures.
NEED_A_HORIZON = {"calibration": "Calibration", "decision-curve": "decision curve"}

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write_report(
    summary: Summary,
    rounds: Sequence[Mapping[str, Any]],
    path: str | Path,
    assessment: Assessment | None = None,
    explanation: Mapping[str, Any] | None = None,
    settings: StudySettings | None = None,
) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        summary, rounds, assessment, explanation, settings: as `report_page`.
        path: of the file; its folder is made if absent.

    Returns:
        The path.

    Raises:
        RunError: FECG-601.
    """
    target = Path(path)
    write_whole(target, report_html(summary, rounds, assessment, explanation, settings).encode())
    return target


def report_html(
    summary: Summary,
    rounds: Sequence[Mapping[str, Any]],
    assessment: Assessment | None = None,
    explanation: Mapping[str, Any] | None = None,
    settings: StudySettings | None = None,
) -> str:
    """The report as text; arguments as `report_page`."""
    return page_html(report_page(summary, rounds, assessment, explanation, settings))


def page_html(page: Mapping[str, Any]) -> str:
    """The page as text, from the parts that `report_page` makes."""
    return ENVIRONMENT.get_template("report.html.j2").render(page)


def report_page(
    summary: Summary,
    rounds: Sequence[Mapping[str, Any]],
    assessment: Assessment | None = None,
    explanation: Mapping[str, Any] | None = None,
    settings: StudySettings | None = None,
) -> dict[str, Any]:
    """What the page is made of: sentences, `Grid`s, pictures with their data; small groups are withheld already.

    Args:
        summary, rounds: as in summary.json and rounds.json.
        assessment: as in assessment.json; None for a run that has none.
        explanation: as in explanation.json; None for a run that did not test its model's attention.
        settings: as in study.toml; None where they are not at hand.
    """
    sites, kept_back = summary.get("sites") or [], withheld_by(assessment)
    thresholds, disclosure = thresholds_of(summary), of_study(summary, assessment)
    assessment = evaluated(assessment)
    simulation = thresholds == NOTHING_WITHHELD
    chosen = settings is None or settings.validation_chooses
    return {
        "study": str(summary.get("study", "study")),
        "simulated": is_simulated(summary),
        "question": _question(len(sites), endpoint(summary)),
        "data": _data(summary),
        "result": result_sentence(summary),
        "figures": _figures(summary, rounds, disclosure, chosen=chosen),
        "comparison": comparison_grid(summary),
        "notes": notes(summary),
        "evaluation": None
        if assessment is None
        else _evaluation(assessment, disclosure, thresholds, simulated=is_simulated(summary)),
        "not_evaluated": f"Not evaluated: {withheld_words(kept_back)}." if kept_back else "",
        "faithfulness": None if explanation is None else _faithfulness(summary, explanation),
        "sites": partition_grid(sites, disclosure),
        "site_notes": disclosure.notes(),
        "data_notes": _counted(_data_counts(summary)),
        "rounds": rounds_grid(rounds),
        "rounds_line": _rounds_line(summary, chosen=chosen),
        "privacy": privacy_section(
            summary,
            rounds,
            settings,
            evaluated=assessment is not None,
            explained=explanation is not None,
            thresholds=thresholds,
        ),
        "settings": None if settings is None else settings_grid(settings, simulation=simulation),
        "settings_notes": () if settings is None else settings_notes(),
        "fingerprints": _fingerprints(summary),
        "few_events": bool((summary.get("federated-c-index") or {}).get("few-events")),
    }


def _question(sites: int, event: str) -> str:
    return (
        f"Does one ECG risk model trained by {sites} sites together put patients in the order of their time "
        f"to {event} as well as a model trained on pooled data, and better than each site alone?"
    )


def _data(summary: Summary) -> str:
    sites = summary.get("sites") or []
    patients, events = (_of_sites(sites, key) for key in ("patients", "events"))
    outcomes = "outcomes SIMULATED by a stated hazard" if is_simulated(summary) else "outcomes observed"
    folds = f"; folds: {_folds(summary['folds'])}" if summary.get("folds") else ""
    return f"{len(sites)} sites, {patients}, {events}; {outcomes}{folds}."


def _of_sites(sites: Sequence[Mapping[str, Any]], key: str) -> str:
    """Their sum; what a site has not told is no nought."""
    known = [site[key] for site in sites if is_known(site.get(key))]
    silent = len(sites) - len(known)
    if silent and not known:
        return f"{key} withheld"
    return f"{count(sum(known))} {key}" + (
        f" (without {silent} sites that withheld theirs)" if silent else ""
    )


def _folds(folds: Mapping[str, Any]) -> str:
    return "; ".join(f"{part.replace('-', ' ')} {_flat(value)}" for part, value in folds.items())


def _data_counts(summary: Summary) -> dict[str, Any]:
    """What is worth knowing of the data: notes of the source, refused recordings, leads that break a quality rule."""
    refused = {
        f"recordings refused ({code})": n for code, n in (summary.get("refused-recordings") or {}).items()
    }
    quality = {f"quality {rule}": n for rule, n in (summary.get("quality") or {}).items() if n}
    notes = {key.replace("-", " "): n for key, n in (summary.get("notes") or {}).items()}
    return notes | refused | quality


def _counted(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {count(value)}" for key, value in numbers.items())


def _flat(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _figures(
    summary: Summary, rounds: Sequence[Mapping[str, Any]], disclosure: SiteDisclosure, *, chosen: bool
) -> dict[str, dict[str, str]]:
    models = "; ".join(
        f"{row.label} {c_index(row.stratified.value, row.stratified.low, row.stratified.high)}"
        for row in comparison_rows(summary)
    )
    return {
        "comparison": _shown(
            comparison_figure(summary),
            f"Stratified C-index on the test part with 95 % interval: {models}.",
            "Stratified C-index of every way to train, on the same test part.",
            "comparison",
            comparison_csv(summary),
        ),
        "rounds": _shown(
            rounds_figure(summary, rounds),
            "C-index on the validation part by survival round; the numbers are in the table of rounds.",
            "C-index of the federated model on the validation part. The global C comes from sums alone: its "
            f"true value lies in the band. The {'best round by stratified C' if chosen else 'last round'} is kept.",
            "rounds",
            rounds_csv(rounds),
        ),
        "sites": _shown(
            sites_figure(summary, disclosure),
            "Patients, events and label mix of every site; the numbers are in the table of sites.",
            "Patients and events of every site and, where stated, the mix of labels.",
            "sites",
            sites_csv(summary, disclosure),
        ),
    }


def _evaluation(
    assessment: Assessment, disclosure: SiteDisclosure, thresholds: Thresholds, *, simulated: bool
) -> dict[str, Any]:
    """What the template shows of the federated model's final evaluation."""
    pictures = _evaluation_pictures(assessment, simulated)
    missing = [title for name, title in NEED_A_HORIZON.items() if name not in pictures]
    return {
        "lines": evaluation_lines(assessment, disclosure),
        "pictures": list(pictures.values()),
        "left_out": [f"{' and '.join(missing)}: left out, since {_no_horizon(assessment)}."]
        if missing
        else [],
        "horizons": horizon_grid(assessment, disclosure),
        "horizon_notes": horizon_notes(assessment),
        "subgroups": _subgroups(assessment, thresholds, simulated),
        "sites": site_grid(assessment, disclosure),
        "site_notes": site_notes(assessment, disclosure),
    }


def _evaluation_pictures(assessment: Assessment, simulated: bool) -> dict[str, dict[str, str]]:
    """Those that there is something to show of."""
    pictures = {
        "survival": _shown(
            survival_figure(assessment, simulated=simulated),
            *survival_words(assessment),
            "survival",
            survival_csv(assessment),
        )
    }
    if figure_horizon(assessment) is not None:
        pictures["calibration"] = _shown(
            calibration_figure(assessment, simulated=simulated),
            *calibration_words(assessment),
            "calibration",
            calibration_csv(assessment),
        )
    if decision_shown(assessment) is not None:
        pictures["decision-curve"] = _shown(
            decision_figure(assessment, simulated=simulated),
            *decision_words(assessment),
            "decision-curve",
            decision_csv(assessment),
        )
    return pictures


def _no_horizon(assessment: Assessment) -> str:
    first = years(min(assessment["horizons-days"]))
    return (
        f"no horizon has figures: at no site were {count(max(assessment['min-at-risk'], 1))} patients followed "
        f"beyond the first, {first} year{'' if first == '1' else 's'}"
    )


def _faithfulness(summary: Summary, explanation: Mapping[str, Any]) -> dict[str, Any]:
    section = faithfulness_section(explanation, simulated=is_simulated(summary))
    figures = [
        _shown(one.figure, one.alternative, one.caption, one.name, one.data) for one in section.figures
    ]
    return {"section": section, "figures": figures}


def _subgroups(assessment: Assessment, thresholds: Thresholds, simulated: bool) -> dict[str, Any] | None:
    """None where the study asked for no subgroups."""
    if not assessment["subgroups"]:
        return None
    return {
        "figure": _shown(
            subgroup_figure(assessment, thresholds, simulated=simulated),
            *subgroup_words(assessment, thresholds),
            "subgroups",
            subgroups_csv(assessment, thresholds),
        ),
        "table": subgroup_grid(assessment, thresholds),
        "notes": subgroup_notes(assessment, thresholds),
    }


def _shown(figure: Figure, alternative: str, caption: str, name: str, data: str) -> dict[str, str]:
    """A figure for the page, with its data as the file `name`.csv."""
    return {
        "name": name,
        "source": _source(figure),
        "alternative": alternative,
        "caption": caption,
        "file": f"{name}.csv",
        "csv": data,
        "data": csv_link(data),
    }


def _source(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(figure_svg(figure)).decode()


def _rounds_line(summary: Summary, *, chosen: bool) -> str:
    planned = summary.get("rounds") or {}
    return (
        f"{count(planned.get('align'))} alignment and {count(planned.get('survival'))} survival rounds; "
        f"{'best survival round' if chosen else 'weights of the last survival round,'} "
        f"{count(summary.get('best-round'))}; "
        f"{byte_size(summary.get('bytes-per-round'))} up and down per site and survival round."
    )


def _fingerprints(summary: Summary) -> list[tuple[str, str]]:
    seconds = (summary.get("seconds") or {}).items()
    return [
        ("study", _or_dash(summary.get("study"))),
        ("seed", _or_dash(summary.get("seed"))),
        ("settings, sha256", _or_dash(summary.get("settings-sha256"))),
        *_code_fingerprints(summary),
        ("time by stage", ", ".join(f"{stage} {duration(value)}" for stage, value in seconds) or DASH),
    ]


def _code_fingerprints(summary: Summary) -> list[tuple[str, str]]:
    """A simulation adds its own package to those that sites and coordinator run, so that it has two."""
    own, federation = summary.get("code-fingerprint"), summary.get("federation-code-fingerprint")
    if federation is None or federation == own:
        return [("code fingerprint", _or_dash(own))]
    return [
        ("code fingerprint, sites and coordinator", str(federation)),
        ("code fingerprint, with the simulations", _or_dash(own)),
    ]


def _or_dash(value: object) -> str:
    return DASH if value is None else str(value)
