"""What the dashboard says of a run, in words, tables and charts.

In:  a `RunView`, whether the coordinator runs, names that may take part. Out: the page's parts as HTML, each on its
own, so that a page that is open replaces what has changed. Called by `dashboard`. Every text passes Jinja's
autoescape; names come from sites and are shown without control characters.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from markupsafe import Markup

from fedecg.report.wording import DASH, byte_size, c_index, count, decimal, duration, printable
from fedecg_server.dashboard_charts import best_point, c_index_chart, loss_chart
from fedecg_server.dashboard_words import (
    ODD_EVENTS,
    SITE_WORDS,
    STATE_WORDS,
    code_words,
    event_words,
    is_repeat,
    phase_words,
)
from fedecg_server.run_view import Event, Round, RunView, SiteEntry
from fedecg_server.waits import Wait

__all__ = ["Facts", "Page", "content_security_policy", "page_html", "page_of", "time_left_s"]

TEMPLATES = Path(__file__).parent / "templates"
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PARTS = (
    "problems", "progress", "sites", "c_index", "losses", "loss_table", "rounds", "events", "fingerprints",
)  # fmt: skip
STAGES = ("align", "survival")
STEPS = ("join", "align", "survey", "survival", "evaluate", "assess", "explain")
ROUNDS_SHOWN, EVENTS_SHOWN, NAME_CHARACTERS = 12, 15, 18
MEASURED = 5  # rounds that the time left is taken from

ODD_STATES = ("waiting", "stopped", "completed-partial")
LIVELY = ("running", "waiting", "starting")
GOOD, ODD = {"online", "working", "answered"}, {"late", "rejected", "refused", "offline"}


def shortened(name: str) -> str:
    """A long name for the head of a column; both ends stay, for sites are often numbered at the end."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 8]}…{name[-7:]}"


ENVIRONMENT.filters["shortened"] = shortened


@dataclass(frozen=True)
class Facts:
    """What is not in the run folder.

    Attributes:
        running: whether a coordinator runs in the folder; None: it cannot be told.
        listed: names that may take part.
        wait: of the supervisor itself; whatever the study waits for comes after it.
        code_fingerprint, authority: of the installed code, of ca.crt.
    """

    running: bool | None = None
    listed: Sequence[str] = ()
    wait: Wait | None = None
    code_fingerprint: str | None = None
    settings_sha256: str | None = None
    authority: str | None = None

    def state_of(self, view: RunView) -> str:
        """Where the study stands."""
        return view.state(self.running, self.wait is not None)


@dataclass(frozen=True)
class Page:
    """What a browser is told.

    Attributes:
        title: of its window.
        said: the state in a sentence or two, which screen readers hear when it changes.
        kind: class of that sentence.
        parts: name -> HTML.
        updated: when the study wrote its status last, in seconds since 1970; None: never.
    """

    title: str
    said: str
    kind: str
    parts: dict[str, str] = field(default_factory=dict)
    updated: float | None = None


def page_of(view: RunView, facts: Facts) -> Page:
    """Everything that changes."""
    state = facts.state_of(view)
    study = _study(view)
    context = _context(view, facts, state)
    macros = ENVIRONMENT.get_template("dashboard_parts.html.j2").module
    return Page(
        title=f"{state} · {study}",
        said=_said(view, facts, state),
        kind="bad" if state == "failed" else "odd" if state in ODD_STATES else "good",
        parts={name.replace("_", "-"): str(getattr(macros, name)(context)).strip() for name in PARTS},
        updated=view.status.updated.timestamp() if view.status else None,
    )


def page_html(page: Page, study: str) -> str:
    """The whole document, which then keeps itself up to date."""
    parts = {name: Markup(html) for name, html in page.parts.items()}  # made by autoescaped templates
    return ENVIRONMENT.get_template("dashboard.html.j2").render(
        page=page, parts=parts, study=study, style=Markup(_style()), script=Markup(_script())
    )


def content_security_policy() -> str:
    """Nothing is loaded and nothing runs but the page's own style and script, by their hashes."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(_style())}'",
            f"script-src '{_hash(_script())}'",
            "connect-src 'self'",
            "img-src data:",  # the empty icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def time_left_s(view: RunView) -> tuple[float | None, int]:
    """Seconds that the rounds still to come will take, as the last ones of their stage took; and rounds not timed yet.

    Returns:
        None where no stage with rounds to come has been timed, or all are done.
    """
    if view.status and view.status.eta_s is not None:
        return view.status.eta_s, 0
    left_s, untimed, known = 0.0, 0, False
    for stage, planned in _planned(view).items():
        took_s = [entry.seconds for entry in view.rounds if entry.stage == stage][-MEASURED:]
        to_come = planned - _done(view, stage)
        if to_come > 0 and took_s:
            left_s, known = left_s + to_come * median(took_s), True
        elif to_come > 0:
            untimed += to_come
    return (left_s if known else None), untimed


@cache
def _style() -> str:
    return (TEMPLATES / "dashboard.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return (TEMPLATES / "dashboard.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _context(view: RunView, facts: Facts, state: str) -> dict[str, Any]:
    chosen = view.result.best_round if view.result else None
    best = best_point(view.rounds, chosen)
    names = sorted(
        {*facts.listed, *(site for entry in view.rounds for site in (*entry.expected, *entry.loss))}
    )
    stages = list(dict.fromkeys(entry.stage for entry in view.rounds if entry.stage in STAGES))
    charts = [loss_chart(stage, view.rounds, names) for stage in stages]
    return {
        "problems": view.problems,
        "steps": _steps(view, state),
        "progress": _progress(view, state),
        "waiting": _waiting(view, facts.wait) if state in LIVELY else None,
        "sites": _sites(view, facts.listed),
        "lively": state in LIVELY,
        "c_chart": c_index_chart(view.rounds, best),
        "c_words": _c_words(view, best, final=chosen is not None),
        "loss_charts": [chart for chart in charts if chart],
        "losses": _loss_table(view, names),
        "rounds": [_round_row(entry) for entry in reversed(view.rounds[-ROUNDS_SHOWN:])],
        "rounds_of": len(view.rounds),
        "bytes": byte_size(sum(entry.bytes for entry in view.rounds)),
        "events": [_event_row(event) for event in reversed(view.events[-EVENTS_SHOWN:])],
        "fingerprints": _fingerprints(view, facts),
    }


def _study(view: RunView) -> str:
    named = (view.status.study if view.status else "") or (view.settings.name if view.settings else "")
    return printable(named or "study")


def _said(view: RunView, facts: Facts, state: str) -> str:
    words = STATE_WORDS.get(state, f"{printable(state)}.")
    if facts.wait and state == "waiting":
        words = "Waiting for the coordinator itself."
    if view.failed:
        return f"{words} {printable(view.failed.message)}" if state == "failed" else words
    if view.status and state in ("running", "waiting"):
        words += f" {phase_words(view.status.phase)}"
    return words


def _steps(view: RunView, state: str) -> list[tuple[str, str]]:
    """Each step of a study, and whether it is done, under way (now) or to come."""
    if view.status is None:
        return [(step, "to-come") for step in STEPS]
    phase = "explain" if is_repeat(view.status.phase) else view.status.phase
    if state in ("completed", "completed-partial"):
        return [(step, "done") for step in STEPS if step != "explain" or _explained(view)]
    at = STEPS.index(phase) if phase in STEPS else -1
    return [(step, "done" if i < at else "now" if i == at else "to-come") for i, step in enumerate(STEPS)]


def _explained(view: RunView) -> bool:
    return view.settings is None or view.settings.evaluation.explain


def _progress(view: RunView, state: str) -> dict[str, Any] | None:
    status = view.status
    if status is None:
        return None
    done = sum(_done(view, stage) for stage in STAGES)
    planned = sum(_planned(view).values())
    lively = state in LIVELY
    in_stage = f"round {count(status.round)} of {count(status.rounds)}" if status.rounds and lively else ""
    return {
        "done": done,
        "planned": planned,
        "words": f"{count(done)} of {count(planned)} rounds done"
        if planned
        else f"{count(done)} rounds done",
        "stage": f"{printable(status.phase)}, {in_stage}" if in_stage else "",
        "left": _left_words(view) if lively else "",
        "started": f"{status.started:%Y-%m-%d %H:%M:%S} UTC",
        "updated": f"{status.updated:%Y-%m-%d %H:%M:%S} UTC",
    }


def _planned(view: RunView) -> dict[str, int]:
    """Stage -> rounds that the settings ask for; without settings, those of the stage under way."""
    if view.settings:
        return {stage: getattr(view.settings, stage).rounds for stage in STAGES}
    if view.status and view.status.phase in STAGES:
        return {view.status.phase: view.status.rounds}
    return {}


def _done(view: RunView, stage: str) -> int:
    return len({entry.round for entry in view.rounds if entry.stage == stage and not entry.repeated})


def _left_words(view: RunView) -> str:
    left_s, untimed = time_left_s(view)
    words = [f"about {_rough(left_s)} of rounds left"] if left_s is not None else []
    words += [f"{count(untimed)} rounds not timed yet"] if untimed else []
    return ", ".join(words)


def _rough(time_s: float) -> str:
    """Time to come, which nobody knows to the second."""
    if time_s >= 3600:
        return _short(time_s)
    return f"{time_s / 60:.0f} min" if time_s >= 90 else f"{time_s:.0f} s"


def _short(time_s: float) -> str:
    return duration(time_s).removesuffix(" 0 s").removesuffix(" 0 min").replace(".0 s", " s")


def _waiting(view: RunView, wait: Wait | None) -> dict[str, Any] | None:
    if wait is None:
        status = view.status
        if status is None or not (status.waiting_for or status.state == "waiting"):
            return None
        whom = ", ".join(map(printable, status.waiting_for)) or "sites to join"
        wait = Wait(whom, status.waited_s, status.at_most_s)
    return {
        "whom": printable(wait.what),
        "waited_s": min(wait.waited_s, wait.at_most_s),
        "at_most_s": wait.at_most_s,
        "words": f"{_short(wait.waited_s)} of at most {_short(wait.at_most_s)}",
    }


def _sites(view: RunView, listed: Sequence[str]) -> list[dict[str, str]]:
    seen = {site.name: site for site in (view.status.sites if view.status else [])}
    names = [*listed, *(name for name in seen if name not in listed)]
    return [_site_row(seen.get(name) or SiteEntry(name=name, state="not-seen")) for name in names]


def _site_row(site: SiteEntry) -> dict[str, str]:
    return {
        "name": printable(site.name),
        "state": SITE_WORDS.get(site.state, printable(site.state)),
        "kind": "good" if site.state in GOOD else "odd" if site.state in ODD else "none",
        "round": DASH if site.last_round is None else count(site.last_round),
        "seconds": decimal(site.seconds, 1),
        "code": code_words(site.code) if site.code else "",
    }


def _c_words(view: RunView, best: tuple[int, float] | None, final: bool) -> str:
    now = view.status.c_index if view.status else None
    if now is None and best is None:
        return "No weights have been judged on the validation part yet."
    words = []
    if now and now.stratified is not None:
        words.append(f"Last: stratified {c_index(now.stratified)}.")
    if now and now.global_ is not None:
        words.append(
            f"Global {c_index(now.global_, now.ci_low, now.ci_high)}, guaranteed to lie in "
            f"{c_index(now.lower)}–{c_index(now.upper)}."
        )
    if best:
        words.append(f"Best {'round' if final else 'so far'}: {best[0]}, {c_index(best[1])}.")
    if now and not words and now.events is None:
        return "No C-index: no site has told a figure of its validation patients (below its thresholds)."
    if now and now.few_events:
        words.append(f"Few events ({count(now.events)}): the intervals are narrower than they should be.")
    return " ".join(words)


def _loss_table(view: RunView, names: Sequence[str]) -> dict[str, Any]:
    rows = [entry for entry in view.rounds if entry.loss][-ROUNDS_SHOWN:]
    return {
        "sites": [printable(name) for name in names],
        "rows": [
            {
                "stage": printable(entry.stage),
                "round": count(entry.round),
                "cells": [decimal(entry.loss.get(name), 3) for name in names],
            }
            for entry in reversed(rows)
        ],
    }


def _round_row(entry: Round) -> dict[str, str]:
    told = entry.validation
    absent = [f"{site} {code}" for site, code in sorted(entry.rejected.items())]
    absent += [f"{site} late" for site in entry.late] + [f"{site} away" for site in entry.missing]
    return {
        "stage": printable(entry.stage),
        "round": count(entry.round) + (" (repeated)" if entry.repeated else ""),
        "stratified": c_index(told.stratified) if told else DASH,
        "bounds": f"{c_index(told.lower)}–{c_index(told.upper)}" if told and told.lower is not None else DASH,
        "answered": f"{len(entry.answered)} of {len(entry.expected)}",
        "absent": printable(", ".join(absent)),
        "seconds": decimal(entry.seconds, 1),
        "bytes": byte_size(entry.bytes),
    }


def _event_row(event: Event) -> dict[str, Any]:
    facts = event.model_extra or {}
    return {
        "time": f"{event.time:%Y-%m-%d %H:%M:%S}",
        "odd": event.event in ODD_EVENTS,
        "words": printable(event_words(event.event, facts)),
    }


def _fingerprints(view: RunView, facts: Facts) -> list[tuple[str, str]]:
    status, result = view.status, view.result
    rows = {
        "run": status.run if status else None,
        "lock, sha256": status.lock if status else None,
        "settings, sha256": (result.settings_sha256 if result else None) or facts.settings_sha256,
        "code fingerprint": (result.code_fingerprint if result else None) or facts.code_fingerprint,
        "ca.crt": facts.authority,
    }
    return [(name, printable(value) if value else DASH) for name, value in rows.items()]
