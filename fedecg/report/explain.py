"""One ECG explained, as a page or a picture: its risk, where the network looked, what hiding does.

In:  `Explanation` of an ECG, the model's signal settings.
Out: HTML that needs nothing else, or the ECG paper as PNG, PDF, SVG. Called by `fedecg explain`.

Nothing here names the file or the patient. Attention is never called an explanation: what it says is set beside what
the model itself answers when parts of the ECG are hidden, and under each map stands what the study's tests found of it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedecg.config import SignalSettings
from fedecg.errors import ModelError
from fedecg.explanation.faithfulness import MIXED_LEADS
from fedecg.explanation.ranks import spearman
from fedecg.explanation.single import Explanation, explain
from fedecg.explanation.verdicts import read_verdicts
from fedecg.files import write_whole
from fedecg.prediction.files import FileRow, row_fields
from fedecg.prediction.predictor import Model, load
from fedecg.prediction.risk import HORIZONS_YEARS, HorizonRisk
from fedecg.progress import Progress
from fedecg.report.attention_figures import (
    attention_paper,
    beat_paper,
    lead_attention_figure,
    lead_change_figure,
    occlusion_paper,
)
from fedecg.report.ecg_layout import STANDARD_PAPER, PaperOptions
from fedecg.report.ecg_paper import save_ecg
from fedecg.report.figures import figure_svg
from fedecg.report.html import ENVIRONMENT
from fedecg.signals import LEADS, read_recording

__all__ = ["explain_record", "explanation_html", "explanation_lines", "write_explanation"]

PAGE, PICTURES = ".html", (".png", ".pdf", ".svg")
NOT_A_REASON = "Attention shows where the network looked, not why."
NOT_TESTED = (
    "This model was not tested: nothing says that its attention has anything to do with what moves its risk."
)


def explain_record(
    model: Path, ecg: Path, out: Path, paper: PaperOptions = STANDARD_PAPER, *, as_json: bool = False
) -> int:
    """`fedecg explain`: read a model and a record, write the file, print the result; returns the exit status.

    Raises:
        ModelError: FECG-306..309, FECG-321, FECG-345 the model; FECG-361 its tests; FECG-357 the suffix of `out`.
        SignalError: FECG-201..214 the record; FECG-326, no finite log hazard.
        RunError: FECG-601.
    """
    _known_kind(out)
    loaded = load(model)
    verdicts = read_verdicts(model, loaded.saved.weights_sha256)
    explanation = explain(loaded, read_recording(ecg), verdicts)
    write_explanation(explanation, loaded.signals, out, loaded.disclaimer, paper)
    lines = explanation_lines(explanation)
    print(json.dumps(_document(explanation, lines, out, loaded), indent=2) if as_json else "\n".join(lines))
    progress = Progress()
    for warning in explanation.prediction.warnings:
        progress.warn(warning)
    progress.say(f"written: {out}")
    progress.say(loaded.disclaimer)
    return 0


def write_explanation(
    explanation: Explanation,
    signals: SignalSettings,
    path: str | Path,
    disclaimer: str,
    paper: PaperOptions = STANDARD_PAPER,
) -> Path:
    """Write the page (.html), or the ECG paper with strips of time attention (.png, .pdf, .svg).

    Args:
        explanation: of `fedecg.explanation.single.explain`.
        signals: of the model, for the footer. disclaimer: last line of the page.
        path: of the file; its folder is made if absent. paper: layout, speed, gain, order of the leads.

    Returns:
        The path.

    Raises:
        ModelError: FECG-357, another suffix. SignalError: FECG-261, another option of the paper. RunError: FECG-601.
    """
    target = _known_kind(Path(path))
    if target.suffix.lower() == PAGE:
        write_whole(target, explanation_html(explanation, signals, disclaimer, paper))
    else:
        save_ecg(_attention_paper(explanation, signals, paper), target)
    return target


def explanation_html(
    explanation: Explanation,
    signals: SignalSettings,
    disclaimer: str,
    paper: PaperOptions = STANDARD_PAPER,
) -> str:
    """The page as text, the same for the same input."""
    footer = _footer(signals)
    figures = [
        _shown(
            "Where the network looked: time attention",
            _attention_paper(explanation, signals, paper),
            time_caption(explanation),
            wide=True,
        ),
        _shown(
            "What moves the risk: hiding a stretch of a lead",
            occlusion_paper(
                explanation.signal_mv,
                explanation.rate_hz,
                explanation.segment_change,
                paper=paper,
                footer=footer,
            ),
            segment_caption(explanation),
            wide=True,
        ),
        _shown(
            "What moves the risk: hiding a lead",
            lead_change_figure(explanation.lead_change, title=""),
            lead_change_caption(explanation),
        ),
        _shown(
            "Attention across leads",
            lead_attention_figure(explanation.attention, title=""),
            lead_caption(explanation),
        ),
    ]
    if explanation.beat.beats[0]:
        beat = explanation.beat
        drawn = beat_paper(beat.signal_mv[0], beat.rate_hz, beat.time[0], footer)
        figures.append(_shown("Time attention on the median beat", drawn, beat_caption(explanation)))
    return ENVIRONMENT.get_template("explanation.html.j2").render(
        result=explanation_lines(explanation),
        warnings=explanation.prediction.warnings,
        figures=figures,
        disclaimer=disclaimer,
    )


def explanation_lines(explanation: Explanation) -> list[str]:
    """The result in words: log hazard and percentile, risks, what hiding says, what attention is."""
    prediction = explanation.prediction
    said = f"Log hazard {prediction.log_hazard:.3f}"
    if prediction.percentile is not None:
        bound = f"{prediction.percentile_bound} " if prediction.percentile_bound else ""
        said += (
            f", higher than that of {bound}{prediction.percentile:.0f} % of the study's validation patients"
        )
    risks = "; ".join(_risk(one) for one in prediction.risks if one.risk is not None or one.no_event)
    return [
        said + ".",
        *([f"Risk {risks}. Intervals: uncertainty of the baseline hazard alone."] if risks else []),
        _hiding_line(explanation),
        f"{NOT_A_REASON} {_tested(explanation)}",
    ]


def _document(explanation: Explanation, lines: list[str], out: Path, model: Model) -> dict[str, Any]:
    """The result as plain data: the row of `fedecg predict`, and what hiding each lead does."""
    row = FileRow("", explanation.prediction, str(out))
    fields = row_fields(row, HORIZONS_YEARS)
    del fields["file"]  # the name of a record may be that of a patient
    return fields | {
        "lead-change": dict(zip(LEADS, explanation.lead_change.tolist(), strict=True)),
        "lead-attention": dict(zip(LEADS, explanation.attention.bars[0].tolist(), strict=True)),
        "lines": lines,
        "outcomes": model.saved.outcomes,
        "note": model.disclaimer,
    }


def time_caption(explanation: Explanation) -> str:
    """What the strips of time attention are, and how uneven attention is at all."""
    lead, step = _place(explanation.attention.time[0])
    text = (
        "Strips: attention that each stretch of 32 samples receives within its own lead, average of the heads, half of "
        "it the stretch itself (residual). Full colour is twice even attention or this ECG's highest, if that is more: "
        f"{explanation.attention.peak[0]:.2f} times even, in {LEADS[lead]} at "
        f"{_seconds(explanation, step, explanation.attention.early_samples)}. The "
        "convolutions below see more than 32 samples, so edges are not sharp. "
        "The paper may not show a lead at that time: columns show one stretch each. "
        "On this page the paper is not to scale; a .pdf is."
    )
    return f"{text} {_found(explanation, 'time attention')}"


def segment_caption(explanation: Explanation) -> str:
    """Where hiding moves the log hazard most, and whether attention is highest there."""
    change = explanation.segment_change
    lead, step = _place(np.abs(change))
    agreement = float(spearman(explanation.attention.time[0].ravel(), np.abs(change).ravel()))
    return (
        "Strips: how far the log hazard moves, up or down, when 32 samples of a lead are replaced by its median; full "
        f"colour is the most, {change[lead, step]:+.3f} in {LEADS[lead]} at {_seconds(explanation, step)}. Rank "
        f"correlation with time attention over all stretches: {agreement:.2f}."
    )


def lead_change_caption(explanation: Explanation) -> str:
    """What hiding a lead did, and its limit."""
    return (
        f"{_hiding_line(explanation)} Limb leads are combinations of two, so hiding one of them can change little "
        "although the model uses what it shows."
    )


def lead_caption(explanation: Explanation) -> str:
    """Which lead receives most attention, and whether hiding agrees."""
    bars, moved = explanation.attention.bars[0], np.abs(explanation.lead_change)
    return (
        f"Each row shows what a lead attends to, in %. {LEADS[int(bars.argmax())]} receives most "
        f"({bars.max():.0%}; even would be 8 %). Rank correlation with the effect of hiding the lead: "
        f"{float(spearman(bars, moved)):.2f}. {_found(explanation, 'lead attention')}"
    )


def beat_caption(explanation: Explanation) -> str:
    """How the beat was made."""
    text = (
        f"Median of {explanation.beat.beats[0]} beats, strips averaged over them; a stretch is 32 samples, so what the "
        "strip shows is smoothed by about that much."
    )
    return f"{text} {_found(explanation, 'time attention')}"


def _tested(explanation: Explanation) -> str:
    """Whether the tests allow to take these maps for anything, in a sentence for the head of the page."""
    verdicts = explanation.verdicts
    if verdicts is None:
        return NOT_TESTED
    made = [verdict for verdict in verdicts.verdicts if verdict.tested]
    on = f"on {verdicts.ecgs} ECGs of {verdicts.sites} site{'' if verdicts.sites == 1 else 's'}"
    failed = sum(verdict.passed is False for verdict in made)
    if failed:
        return f"In this model it failed {failed} of {len(made)} tests {on}: do not read its maps as an explanation."
    if any(verdict.passed is None for verdict in made):
        return f"This model was tested on {verdicts.ecgs} ECGs: too few to say whether its maps explain anything."
    return f"In this model it failed none of the {len(made)} tests made {on}."


def _found(explanation: Explanation, about: str) -> str:
    """What must stand under a map: the study's own caption, or that nobody tested it."""
    verdicts = explanation.verdicts
    if verdicts is not None and about in verdicts.captions:  # it says itself whether leads are mixed
        return f"Tests of this model: {verdicts.captions[about]}"
    mixed = explanation.mixes_leads and about == "time attention"
    return f"{NOT_TESTED} {MIXED_LEADS}" if mixed else NOT_TESTED


def _known_kind(path: Path) -> Path:
    if path.suffix.lower() not in (PAGE, *PICTURES):
        raise ModelError(
            "FECG-357",
            "file for the explanation",
            found="another suffix",
            expected="a name that ends in .html, .png, .pdf or .svg",
        )
    return path


def _attention_paper(explanation: Explanation, signals: SignalSettings, paper: PaperOptions) -> Figure:
    return attention_paper(
        explanation.signal_mv,
        explanation.rate_hz,
        explanation.attention,
        paper=paper,
        footer=_footer(signals),
    )


def _footer(signals: SignalSettings) -> str:
    return f"filter {signals.highpass_hz:g}–{signals.lowpass_hz:g} Hz, as the network sees it"


def _hiding_line(explanation: Explanation) -> str:
    change = explanation.lead_change
    lead = int(np.abs(change).argmax())
    return f"Hiding {LEADS[lead]} moves the log hazard most: by {change[lead]:+.3f}."


def _risk(one: HorizonRisk) -> str:
    years = f"within {one.years:g} year{'' if one.years == 1 else 's'}"
    if one.risk is None:
        limit = 100 * (one.high or 0.0)
        return f"{years} below {limit:.1f} % (97.5 % limit: no event seen by then in the validation patients)"
    interval = "" if one.low is None or one.high is None else f" ({100 * one.low:.1f}–{100 * one.high:.1f} %)"
    return f"{years} {100 * one.risk:.1f} %{interval}"


def _place(values: np.ndarray) -> tuple[int, int]:
    lead, step = np.unravel_index(int(values.argmax()), values.shape)
    return int(lead), int(step)


def _seconds(explanation: Explanation, step: int, early_samples: int = 0) -> str:
    width_s = explanation.signal_mv.shape[1] / explanation.attention.steps / explanation.rate_hz
    early_s = early_samples / explanation.rate_hz
    return f"{max(step * width_s - early_s, 0.0):.1f}–{(step + 1) * width_s - early_s:.1f} s"


def _shown(title: str, figure: Figure, caption: str, *, wide: bool = False) -> dict[str, Any]:
    source = "data:image/svg+xml;base64," + base64.b64encode(figure_svg(figure)).decode()
    return {"title": title, "source": source, "caption": caption, "wide": wide}
