"""Decision curve: what acting on the predicted risk is worth, as a figure and in words.

In:  the assessment of a study, as in assessment.json.
Out: what is shown of the curve, a matplotlib Figure, sentences.
     Called by `figures`, `html`, `figure_data`, `model_card`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedecg.report.assessment import Assessment, figure_horizon, with_deaths
from fedecg.report.look import BLUE, GREY, INK, look, new_figure, say_nothing_to_show
from fedecg.report.wording import count, decimal, percent, years

__all__ = ["DecisionShown", "decision_figure", "decision_shown", "decision_words"]

Float64 = NDArray[np.float64]

BELOW = 0.5  # of its height at threshold 0: how far below zero "treat all" is followed
FLAT = 0.02  # of the same height: a model's benefit below it is drawn no further
PER = 1000  # patients, in words


class DecisionShown(NamedTuple):
    """The part of the decision curve that is shown.

    Attributes:
        years: the horizon, as text.
        thresholds: (h,) risks from which on a patient is treated.
        model, treat_all: (h,) net benefit, in true positives a patient; to treat nobody has 0.
    """

    years: str
    thresholds: Float64
    model: Float64
    treat_all: Float64


def decision_shown(assessment: Assessment) -> DecisionShown | None:
    """The curve at the last horizon with figures, up to where neither policy is worth showing; None without one."""
    at = figure_horizon(assessment)
    if at is None:
        return None
    curve = assessment["decision"]
    thresholds = np.array(curve["thresholds"], dtype=np.float64)
    model, treat_all = (np.array(curve[name][at], dtype=np.float64) for name in ("model", "treat-all"))
    if not np.isfinite(model).all():
        return None
    height = float(max(treat_all.max(), model.max(), 0.0))
    worth_showing = np.flatnonzero((treat_all > -BELOW * height) | (model > FLAT * height))
    end = min(int(worth_showing.max(initial=0)) + 2, thresholds.size)
    return DecisionShown(
        years(assessment["horizons-days"][at]), thresholds[:end], model[:end], treat_all[:end]
    )


def decision_figure(assessment: Assessment, *, simulated: bool) -> Figure:
    """Net benefit by threshold of treating by the model, everybody, nobody."""
    curve = decision_shown(assessment)
    with look():
        figure = new_figure("Decision curve", 3.2, simulated=simulated)
        axes = figure.add_subplot()
        if curve is None:
            say_nothing_to_show(axes, "no horizon has figures")
            return figure
        axes.axhline(0, color=GREY, linewidth=1.2, linestyle=":", label="treat nobody")
        axes.plot(
            curve.thresholds,
            PER * curve.treat_all,
            color=INK,
            linewidth=1.2,
            linestyle="--",
            label="treat all",
        )
        axes.plot(curve.thresholds, PER * curve.model, color=BLUE, linewidth=1.8, label="treat by the model")
        height = PER * max(float(curve.model.max()), float(curve.treat_all.max()))
        axes.set_ylim((-BELOW * height, 1.08 * height) if height > 0 else (-1, 1))
        axes.set_xlim(0, float(curve.thresholds[-1]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        year = "year" if curve.years == "1" else "years"
        axes.set_xlabel(f"treated from this predicted risk at {curve.years} {year} on")
        axes.set_ylabel(f"net benefit per {count(PER)} patients")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def decision_words(assessment: Assessment) -> tuple[str, str]:
    """Alternative text and caption of the decision curve."""
    caption = (
        "Net benefit: true positives less false positives weighted by the odds of the threshold, per 1,000 patients. "
        "A model helps where its line is above both others. Sites' own curves of censoring; no interval, so read it "
        f"with the number of events. {_verdict(assessment)}"
    )
    return f"Decision curve. {_verdict(assessment)}", with_deaths(assessment, caption)


def _verdict(assessment: Assessment) -> str:
    """What the curve says, in a sentence."""
    curve = decision_shown(assessment)
    if curve is None:
        return "No horizon has figures."
    gain = PER * (curve.model - np.maximum(curve.treat_all, 0.0))
    better = np.flatnonzero(gain > 0.005)  # less prints as zero
    at_horizon = f"At year {curve.years}"
    if not better.size:
        return (
            f"{at_horizon} no threshold shown is better served by the model than by treating all or nobody."
        )
    best = int(np.argmax(gain))
    first, last = (_threshold(curve.thresholds[place]) for place in (better[0], better[-1]))
    return (
        f"{at_horizon} acting on the model beats treating all and treating nobody at {better.size} of "
        f"{gain.size} thresholds shown ({first} to {last}); the most at {_threshold(curve.thresholds[best])}: net "
        f"{decimal(float(gain[best]), 1 if gain[best] >= 0.05 else 2)} more true positives per {count(PER)} patients."
    )


def _threshold(risk: float) -> str:
    return percent(risk) if round(1000 * risk) % 10 == 0 else f"{100 * risk:.1f} %"
