"""Charts of the dashboard: where every line, band and tick stands in a small SVG.

In:  rounds of a run. Out: `Chart`s, which templates/dashboard_parts.html.j2 draws. Called by `dashboard_page`.
The report's figures (fedecg.report.figures) show the same in matplotlib; a page that is drawn again every few seconds
inside the supervisor, in the reader's light or dark colours, needs neither its memory nor its fonts. Colours are the
report's (Okabe & Ito 2008) and stand in the page's style; lines differ by dash as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fedecg.report.findings import CHANCE, validation_points
from fedecg.report.wording import c_index, decimal, printable
from fedecg_server.run_view import Round

__all__ = ["Chart", "Line", "best_point", "c_index_chart", "loss_chart"]

WIDTH, HEIGHT = 360, 210  # narrow on purpose: shown at its own size on a phone
LEFT, RIGHT, TOP, BOTTOM = 46, 348, 12, 172
TICKS = 5
DOTS_UP_TO = 60  # rounds; more would melt into each other
TOLD_APART = 8  # sites with a colour and a dash of their own
OTHER = "other"

Value = float | None


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        kind: its class in the style; the legend shows the same.
        path: SVG path data, in pieces where values are missing.
        dots: a point each.
    """

    name: str
    kind: str
    path: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn, in user units of a 360 x 210 view box."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    band: str = ""  # path data of the area between the guaranteed bounds
    chance: float | None = None  # y of C = 0.5
    ring: tuple[float, float] | None = None  # around the best round
    legend: list[tuple[str, str]] = field(default_factory=list)  # class, name


@dataclass(frozen=True)
class _Axes:
    """Linear scales that hold all points."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (RIGHT - LEFT), 1)

    def y(self, value: float) -> float:
        return round(BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (BOTTOM - TOP), 1)

    def x_ticks(self) -> list[tuple[float, str]]:
        return [(self.x(value), decimal(value, 0)) for value in _ticks(self.x_low, self.x_high, least=1.0)]

    def y_ticks(self) -> list[tuple[float, str]]:
        values = _ticks(self.y_low, self.y_high)
        step = values[1] - values[0] if len(values) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(self.y(value), decimal(value, digits)) for value in values]


def best_point(rounds: Iterable[Round], chosen: int | None = None) -> tuple[int, float] | None:
    """The best round by stratified C, and that C; None where no round could be scored.

    Args:
        rounds: of the run.
        chosen: the best round as result.json names it; without, the best so far: the later one of equals, as the study
            itself chooses.
    """
    points = [
        (number, point["stratified"])
        for number, point in validation_points(entry.model_dump(by_alias=True) for entry in rounds).items()
        if point["stratified"] is not None
    ]
    if chosen is not None:
        return next(((number, value) for number, value in points if number == chosen), None)
    return max(points, key=lambda point: (point[1], point[0]), default=None)


def c_index_chart(rounds: Sequence[Round], best: tuple[int, float] | None) -> Chart | None:
    """C-index on the validation part after each survival round; None where no round was scored."""
    points = dict(sorted(validation_points(entry.model_dump(by_alias=True) for entry in rounds).items()))
    values = {
        name: {number: point[name] for number, point in points.items()}
        for name in ("stratified", "global", "lower", "upper")
    }
    axes = _axes(list(values.values()), [CHANCE])
    if axes is None:
        return None
    last = list(points)[-1]
    stratified, overall = values["stratified"][last], values["global"][last]
    words = f"After round {last}: stratified {c_index(stratified)}, global {c_index(overall)}"
    if best:
        words += f". Best: round {best[0]}, {c_index(best[1])}"
    return Chart(
        title="C-index by round, validation part",
        description=f"{words}. The numbers are in the table of rounds.",
        x_label="after survival round",
        y_label="C-index",
        x_ticks=axes.x_ticks(),
        y_ticks=axes.y_ticks(),
        band=_band(axes, values["lower"], values["upper"]),
        lines=[
            _line(axes, "global C", "overall", values["global"], dotted=False),
            _line(axes, "stratified C", "stratified", values["stratified"]),
        ],
        chance=axes.y(CHANCE),
        ring=None if best is None else (axes.x(best[0]), axes.y(best[1])),
        legend=[
            ("stratified", "stratified C (pairs within a site)"),
            ("overall", "global C"),
            ("bounds", "its guaranteed bounds"),
            ("chance", "chance"),
            *([("ring", f"best round ({best[0]})")] if best else []),
        ],
    )


def loss_chart(stage: str, rounds: Sequence[Round], sites: Sequence[str]) -> Chart | None:
    """Training loss of every site in the rounds of one stage; None where there is none.

    Args:
        stage: as rounds.json names it.
        rounds: of the run; of a round that was repeated, the last counts.
        sites: all names, in an order that does not change: it decides on the colours.
    """
    by_round = {entry.round: entry.loss for entry in rounds if entry.stage == stage}
    series = {
        site: {number: loss.get(site) for number, loss in sorted(by_round.items())}
        for site in sites
        if any(site in loss for loss in by_round.values())
    }
    axes = _axes(list(series.values()), [])
    if axes is None:
        return None
    kinds = {site: f"site-{at}" if at < TOLD_APART else OTHER for at, site in enumerate(sites)}
    legend = [(kinds[site], printable(site)) for site in series if kinds[site] != OTHER]
    others = sum(kinds[site] == OTHER for site in series)
    return Chart(
        title=f"Loss by site: {printable(stage)} rounds",
        description=f"Training loss of {len(series)} sites. The numbers are in the table of losses.",
        x_label=f"{printable(stage)} round",
        y_label="loss",
        x_ticks=axes.x_ticks(),
        y_ticks=axes.y_ticks(),
        lines=[_line(axes, printable(site), kinds[site], values) for site, values in series.items()],
        legend=legend + ([(OTHER, f"{others} other sites")] if others else []),
    )


def _axes(series: Sequence[Mapping[int, Value]], always: Sequence[float]) -> _Axes | None:
    numbers = [number for values in series for number, value in values.items() if value is not None]
    known = [value for values in series for value in values.values() if value is not None]
    if not known:
        return None
    low, high = min([*known, *always]), max([*known, *always])
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    first, last = min(numbers), max(numbers)
    lonely = 0.5 if first == last else 0.0
    return _Axes(first - lonely, last + lonely, low - room, high + room)


def _line(axes: _Axes, name: str, kind: str, values: Mapping[int, Value], dotted: bool = True) -> Line:
    pieces: list[str] = []
    dots: list[tuple[float, float]] = []
    pen_down = False
    for number, value in values.items():
        if value is None:
            pen_down = False
            continue
        dots.append((axes.x(number), axes.y(value)))
        pieces.append(f"{'L' if pen_down else 'M'}{dots[-1][0]:g} {dots[-1][1]:g}")
        pen_down = True
    # A value without neighbours has no line: its dot must be seen.
    shown = dots if len(dots) == 1 or (dotted and len(dots) <= DOTS_UP_TO) else []
    return Line(name, kind, " ".join(pieces), shown)


def _band(axes: _Axes, lower: Mapping[int, Value], upper: Mapping[int, Value]) -> str:
    """Path data of the area; a piece for every pair of neighbours that both have bounds."""
    known = [(axes.x(n), axes.y(low), axes.y(high)) for n, low, high in _both(lower, upper)]
    if len(known) == 1:
        (x, low, high), half = known[0], 3
        known = [(x - half, low, high), (x + half, low, high)]
    return " ".join(
        f"M{x0:g} {low0:g}L{x0:g} {high0:g}L{x1:g} {high1:g}L{x1:g} {low1:g}Z"
        for (x0, low0, high0), (x1, low1, high1) in pairwise(known)
    )


def _both(lower: Mapping[int, Value], upper: Mapping[int, Value]) -> Iterable[tuple[int, float, float]]:
    for number, low in lower.items():
        high = upper[number]
        if low is not None and high is not None:
            yield number, low, high


def _ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    rough = max((high - low) / TICKS, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * at for at in range(first, last + 1)]
