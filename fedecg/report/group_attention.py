"""Where the network looks in groups of patients: high against low risk, and by finding.

In:  explanation.json of a study. Out: figures with captions and data. Called by `faithfulness_report`.

Means over at least ten patients of each site that contributes; smaller groups never left their site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.explanation import AFTER_S, BEFORE_S, Attention
from fedecg.explanation.groups import HIGH_RISK, LOW_RISK
from fedecg.report.attention_figures import FaithfulnessFigure, beat_paper, group_bars_figure
from fedecg.report.figure_data import csv_text
from fedecg.report.wording import count, percent
from fedecg.signals import LEADS

__all__ = ["group_figures"]

Groups = Mapping[str, Mapping[str, Any]]

COMPARED = 3  # findings whose bars stand beside each other, as many as there are shades of one hue
SHOWN = 3  # findings whose beats are drawn


def group_figures(explanation: Mapping[str, Any]) -> tuple[FaithfulnessFigure, ...]:
    """Bars and beats of the groups; none where no group was large enough at any site.

    Args:
        explanation: as in explanation.json.
    """
    groups: Groups = explanation["groups"]
    risk = [name for name in (HIGH_RISK, LOW_RISK) if name in groups]
    findings = [name for name in groups if name not in risk]  # the most frequent first
    captions = explanation["captions"]
    figures = [
        _bars(groups, names, about, captions["lead attention"])
        for names, about in ((risk, "risk"), (findings[:COMPARED], "finding"))
        if names
    ]
    beats = [name for name in (*risk, *findings[:SHOWN]) if "beat" in groups[name]]
    return (*figures, *(_beat(name, groups[name], captions["time attention"]) for name in beats))


def _bars(groups: Groups, names: Sequence[str], about: str, caption: str) -> FaithfulnessFigure:
    shown = {name: _received(groups[name]) for name in names}
    told = "; ".join(
        f"{name}: most at {LEADS[int(bars.argmax())]}, {percent(float(bars.max()))}"
        for name, bars in shown.items()
    )
    every = names if about == "risk" else [name for name in groups if name not in (HIGH_RISK, LOW_RISK)]
    rows = [
        (name, groups[name]["ecgs"], groups[name]["sites"], lead, float(value))
        for name in every
        for lead, value in zip(LEADS, _received(groups[name]), strict=True)
    ]
    leads = {name: np.array(groups[name]["leads"], dtype=np.float64) for name in names}
    steps = np.ones((1, len(LEADS), 1))  # bars know nothing of time
    return FaithfulnessFigure(
        group_bars_figure({name: Attention(steps, matrix[None]) for name, matrix in leads.items()}),
        f"Attention that each lead receives, by {about} (even: 8 %). {told}.",
        f"Mean attention that each lead receives, by {about}: {_counted(groups, names)}. {caption}",
        f"attention-by-{about}",
        csv_text(("group", "ecgs", "sites", "lead", "attention-received"), rows),
    )


def _beat(name: str, group: Mapping[str, Any], caption: str) -> FaithfulnessFigure:
    beat = group["beat"]
    signal_mv, time = (np.array(beat[kind], dtype=np.float64) for kind in ("signal-mv", "time"))
    rate_hz = float(beat["rate-hz"])
    time_s = (np.arange(signal_mv.shape[1]) / rate_hz - BEFORE_S).round(4)
    rows = [
        (lead, float(second), float(signal_mv[number, at]), float(time[number, at]))
        for number, lead in enumerate(LEADS)
        for at, second in enumerate(time_s)
    ]
    lead, at = np.unravel_index(int(time.argmax()), time.shape)
    return FaithfulnessFigure(
        beat_paper(signal_mv, rate_hz, time, f"{name}: mean of {count(group['beats'])} median beats"),
        f"{name}: time attention on the mean beat, highest {time.max():.2f} times even in {LEADS[int(lead)]}, "
        f"{time_s[int(at)]:+.2f} s from the R peak.",
        f"{name}: mean over {count(group['beats'])} patients of their median beats, from {BEFORE_S:g} s before to "
        f"{AFTER_S:g} s after the R peak, and of the time attention on them. {caption}",
        f"beat-{_file_name(name)}",
        csv_text(("lead", "seconds-from-r", "mean-mv", "attention-over-even"), rows),
    )


def _received(group: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.asarray(np.array(group["leads"], dtype=np.float64).mean(axis=0))


def _counted(groups: Groups, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} {count(groups[name]['ecgs'])} patients at {groups[name]['sites']} site"
        f"{'' if groups[name]['sites'] == 1 else 's'}"
        for name in names
    )


def _file_name(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name).lower()
