"""A code bank's similarities as a picture: which statements it holds to be alike.

In:  a `Bank`. Out: a .png, .svg or .pdf. Called by `fedecg bank show --figure`.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedecg.files import write_whole
from fedecg.report.look import INK, SKY, look, rendered
from fedecg.text import Bank
from fedecg.text.separation import categories, opposites, similarities

__all__ = ["draw_similarities", "write_similarities"]

ROW_IN = 0.12  # 6 point letters and a little air
LABEL_PT = 6
LABELLED_ROWS = 250  # beyond, categories only: the picture would be taller than a door
LABEL_LETTERS, CATEGORY_LETTERS = 48, 44
NO_DATE = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def write_similarities(bank: Bank, path: Path) -> None:
    """Write the picture of `draw_similarities`; the kind is that of the name's ending.

    Raises:
        RunError: FECG-601 the file cannot be written.
    """
    kind = path.suffix
    write_whole(path, rendered(draw_similarities(bank), kind.removeprefix("."), NO_DATE[kind]))


def draw_similarities(bank: Bank) -> Figure:
    """Cosines of all statements, ordered by category; opposites that are not told apart are ringed."""
    group = categories(bank)
    order = sorted(range(len(group)), key=lambda row: group[row])  # stable: codes stay in the bank's order
    count = len(order)
    side = ROW_IN * min(count, LABELLED_ROWS)
    with look():
        figure = Figure(figsize=(max(side, 1.2) + 6.4, max(side, 1.2) + 1.9), layout="constrained")
        figure.suptitle(
            f"Code bank {bank.name}: cosine of {count} statements",
            x=0.012,
            ha="left",
            fontsize=10,
            weight="bold",
        )
        axes = figure.add_subplot()
        cosine = similarities(bank)[np.ix_(order, order)]
        image = axes.imshow(cosine, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        _label_rows(axes, bank, order)
        _label_categories(axes, [group[row] for row in order])
        _ring_failures(axes, bank, order)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.02, pad=0.01, aspect=40)
        bar.set_label("cosine of the bank's vectors", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def _label_rows(axes: Axes, bank: Bank, order: list[int]) -> None:
    if len(order) > LABELLED_ROWS:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    prompt_of = bank.provenance.get("prompts", {})
    codes = [bank.codes[row] for row in order]
    said = [str(prompt_of.get(code, "")).partition(": ") for code in codes]
    words = [
        f"{_cut(last or first, LABEL_LETTERS)}  {code}"
        for (first, _, last), code in zip(said, codes, strict=True)
    ]
    axes.set_yticks(range(len(codes)), words, fontsize=LABEL_PT)
    axes.set_xticks(range(len(codes)), codes, fontsize=LABEL_PT, rotation=90)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2)


def _label_categories(axes: Axes, group: list[str]) -> None:
    start = 0
    for name, members in groupby(group):
        size = len(list(members))
        if start:
            axes.axhline(start - 0.5, color=INK, linewidth=0.4)
            axes.axvline(start - 0.5, color=INK, linewidth=0.4)
        axes.annotate(
            _cut(name, CATEGORY_LETTERS),
            (len(group) - 0.5, start + (size - 1) / 2),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=LABEL_PT + 0.5,
            annotation_clip=False,
        )
        start += size


def _ring_failures(axes: Axes, bank: Bank, order: list[int]) -> None:
    place = {bank.codes[row]: index for index, row in enumerate(order)}
    near = [(place[pair.one], place[pair.other]) for pair in opposites(bank) if not pair.apart]
    if near:
        rows, columns = zip(*(near + [(other, one) for one, other in near]), strict=True)
        axes.scatter(
            columns, rows, s=14, facecolors="none", edgecolors=SKY, linewidths=1.0,
            label=f"{len(near)} opposite(s) not told apart",
        )  # fmt: skip
        axes.legend(loc="lower left", bbox_to_anchor=(1.0, 1.0), fontsize=7)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
