"""Figures of a study for Prometheus, on 127.0.0.1.

In:  the coordinator's folder. Out: `/metrics` in Prometheus' text format, made anew at each visit. Called by `watch`
beside a running study. Labels are bounded: states, phases, events and codes that fedecg knows (anything else is
"other"), and names of sites that stand in the coordinator's list.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fedecg.codes import CODES
from fedecg.errors import FedecgError
from fedecg_server.coordinator import Coordinator
from fedecg_server.loopback_http import Answer, LoopbackServer
from fedecg_server.run_view import CIndex, RunFiles, RunView, SiteEntry
from fedecg_server.sites import read_sites
from fedecg_server.waits import present_wait

__all__ = ["metrics_server", "metrics_text"]

KEY = "metrics-port"
TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
STATES = (
    "not-started", "starting", "running", "waiting", "stopped", "completed", "completed-partial", "failed",
)  # fmt: skip
PHASES = ("join", "align", "survey", "survival", "evaluate", "assess", "explain", "done")
SITE_STATES = ("online", "working", "answered", "late", "rejected", "offline", "refused", "not-seen")
EVENTS = (
    "start", "resume", "join", "refused", "round", "late", "rejected", "readmitted", "below-quorum", "phase",
    "finish", "fail",
)  # fmt: skip


def metrics_server(coordinator: Coordinator, port: int) -> LoopbackServer:
    """The server of the figures, which does not answer yet.

    Raises:
        RunError: FECG-691 if the port cannot be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(coordinator))

    def answer() -> Answer:
        return Answer(generate_latest(registry), TEXT_FORMAT)

    return LoopbackServer(port, {"/metrics": answer, "/": answer}, KEY)


def metrics_text(
    view: RunView, running: bool | None, listed: Collection[str], now_s: float, waits: bool = False
) -> Iterator[Metric]:
    """Every figure of a run.

    Args:
        view: its folder.
        running: whether the coordinator runs.
        listed: names of sites that may be labels.
        now_s: the present, in seconds since 1970.
        waits: whether the supervisor itself waits.
    """
    status = view.status
    yield _one_of("fedecg_study_state", "Where the study stands: 1 for the present state.", "state",
                  STATES, view.state(running, waits))  # fmt: skip
    yield _gauge(
        "fedecg_unreadable_files", "Files of the run folder that cannot be read.", len(view.problems)
    )
    if status:
        phase = status.phase.partition(",")[0] if status.phase not in PHASES else status.phase
        yield _one_of(
            "fedecg_study_phase", "What is done now: 1 for the present phase.", "phase", PHASES, phase
        )
        yield _gauge("fedecg_round", "Round of the present stage.", status.round)
        yield _gauge("fedecg_rounds", "Rounds of the present stage.", status.rounds)
        yield _gauge("fedecg_waiting_sites", "Sites that are waited for.", len(status.waiting_for))
        yield _gauge("fedecg_waited_seconds", "How long they have been waited for.", status.waited_s)
        yield _gauge("fedecg_wait_limit_seconds", "How long they are waited for at most.", status.at_most_s)
        age_s = max(0.0, now_s - status.updated.timestamp())
        yield _gauge("fedecg_status_age_seconds", "Time since the study wrote its status.", age_s)
    yield from _site_metrics(status.sites if status else [], listed)
    yield from _round_metrics(view)


def _round_metrics(view: RunView) -> Iterator[Metric]:
    if view.rounds:
        yield _gauge("fedecg_last_round_seconds", "Length of the last round.", view.rounds[-1].seconds)
    exchanged = sum(entry.bytes for entry in view.rounds)
    yield CounterMetricFamily("fedecg_exchanged_bytes", "Sent to and received from sites.", value=exchanged)
    yield CounterMetricFamily("fedecg_rounds_done", "Rounds that are over.", value=len(view.rounds))
    yield _counter("fedecg_updates_rejected", "Updates that rounds left out.", "code", view.rejected, CODES)
    yield _counter("fedecg_events", "Lines of events.jsonl.", "event", view.happened, EVENTS)
    told = view.status.c_index if view.status else None
    if told:
        yield _validation(told)


def _validation(told: CIndex) -> Metric:
    metric = GaugeMetricFamily(
        "fedecg_validation_c_index",
        "C-index on the validation part; lower and upper are guaranteed bounds of the global one.",
        labels=["kind"],
    )
    for kind in ("stratified", "global_", "lower", "upper", "ci_low", "ci_high"):
        value = getattr(told, kind)
        if value is not None:
            metric.add_metric([kind.rstrip("_")], value)
    return metric


def _site_metrics(sites: Iterable[SiteEntry], listed: Collection[str]) -> Iterator[Metric]:
    seen = {site.name: site for site in sites}
    states = dict.fromkeys((*SITE_STATES, OTHER), 0)
    for name in {*seen, *listed}:
        states[_known(seen[name].state if name in seen else "not-seen", SITE_STATES)] += 1
    counts = GaugeMetricFamily("fedecg_sites", "Sites by state.", labels=["state"])
    for state, number in states.items():
        counts.add_metric([state], number)
    yield counts
    seconds = GaugeMetricFamily(
        "fedecg_site_last_answer_seconds", "Length of a site's last answer.", labels=["site"]
    )
    last = GaugeMetricFamily("fedecg_site_last_round", "Last round that a site answered in.", labels=["site"])
    for name in sorted(set(seen) & set(listed)):
        site = seen[name]
        if site.seconds is not None:
            seconds.add_metric([name], site.seconds)
        if site.last_round is not None:
            last.add_metric([name], site.last_round)
    yield seconds
    yield last


class _Collector:
    """Reads the folder whenever Prometheus asks."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator, self.files = coordinator, RunFiles(coordinator.run)

    def collect(self) -> Iterator[Metric]:
        waits = present_wait(self.coordinator) is not None
        return metrics_text(self.files.view(), True, _listed(self.coordinator), time.time(), waits)


def _listed(coordinator: Coordinator) -> Collection[str]:
    try:
        return list(read_sites(coordinator).sites)
    except (FedecgError, OSError):  # a damaged list costs labels, not the figures
        return ()


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _one_of(name: str, words: str, label: str, known: Iterable[str], present: str) -> Metric:
    metric = GaugeMetricFamily(name, words, labels=[label])
    kinds = (*known, OTHER)
    for kind in kinds:
        metric.add_metric([kind], float(kind == _known(present, kinds)))
    return metric


def _counter(name: str, words: str, label: str, counts: Mapping[str, int], known: Collection[str]) -> Metric:
    metric = CounterMetricFamily(name, words, labels=[label])
    sums: dict[str, int] = {}
    for kind, number in sorted(counts.items()):
        kept = _known(kind, known)
        sums[kept] = sums.get(kept, 0) + number
    for kind, number in sums.items():
        metric.add_metric([kind], number)
    return metric


def _known(kind: str, known: Collection[str]) -> str:
    return kind if kind in known else OTHER
