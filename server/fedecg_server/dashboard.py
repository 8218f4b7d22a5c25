"""The web page of a study at its coordinator: where it stands, on 127.0.0.1, to be read and nothing else.

In:  the coordinator's folder. Out: `/` (a page that asks again every 2 s), `/status.json`, `/rounds.json`,
`/events.json`, and `/parts.json` for the page. Called by `watch` beside a running study and by `fedecg-server
dashboard` beside one that has ended. It reads files and loads neither torch nor Flower.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Lock
from typing import TypeVar

from pydantic import TypeAdapter

from fedecg.config import settings_sha256
from fedecg.errors import FedecgError
from fedecg.fingerprint import code_fingerprint
from fedecg_server.certificates import ca_fingerprint
from fedecg_server.coordinator import Coordinator
from fedecg_server.dashboard_page import Facts, Page, content_security_policy, page_html, page_of
from fedecg_server.loopback_http import HTML, JSON, Answer, LoopbackServer, serving
from fedecg_server.run_view import Event, Round, RunFiles, RunView
from fedecg_server.server_lock import running_pid
from fedecg_server.sites import read_sites
from fedecg_server.waits import Wait, present_wait, wait_keys

__all__ = ["Dashboard", "dashboard_server", "serve_dashboard"]

T = TypeVar("T")

LOOK_EVERY_S = 1.0  # at the coordinator's lock and the list of sites
KEY = "dashboard-port"
ROUNDS, EVENTS = TypeAdapter(list[Round]), TypeAdapter(list[Event])


class Dashboard:
    """Everything that the paths answer, for one coordinator; used by several threads at once.

    Args:
        coordinator: the folder.
        supervised: whether this process is the one that runs the study, so that nobody need be asked.
    """

    def __init__(self, coordinator: Coordinator, supervised: bool) -> None:
        self.coordinator, self.supervised = coordinator, supervised
        self.files = RunFiles(coordinator.run)
        self._authority = _or_none(lambda: ca_fingerprint(coordinator.tls.ca))
        self._lock = Lock()
        self._looked_s = float("-inf")
        self._running: bool | None = None
        self._listed: Sequence[str] = ()
        self._wait: Wait | None = None
        self._made: tuple[RunView, Facts, Page] | None = None

    def routes(self) -> dict[str, Callable[[], Answer]]:
        """Path -> its answer; there are no others."""
        return {
            "/": self.page,
            "/parts.json": self.parts,
            "/status.json": self.status,
            "/rounds.json": self.rounds,
            "/events.json": self.events,
        }

    def page(self) -> Answer:
        """The page."""
        page = self._page()
        study = page.title.partition(" · ")[2]
        return Answer(
            page_html(page, study).encode(), HTML, {"Content-Security-Policy": content_security_policy()}
        )

    def parts(self) -> Answer:
        """What the open page replaces."""
        return _json(asdict(self._page()))

    def status(self) -> Answer:
        """status.json, its `state` and whom it waits for as it is by now, and what could not be read."""
        view = self.files.view()
        facts = self._facts(view)
        view = view.present(facts.running)
        wait = wait_keys(facts.wait) if facts.wait else {}
        status = view.status.model_dump(mode="json", by_alias=True) if view.status else {}
        failure = {"code": view.failed.code, "message": view.failed.message} if view.failed else {}
        now = {"state": facts.state_of(view), "running": facts.running, "problems": view.problems}
        return _json(status | wait | failure | now)

    def rounds(self) -> Answer:
        """rounds.json."""
        return _json(ROUNDS.dump_python(self.files.view().rounds, mode="json", by_alias=True))

    def events(self) -> Answer:
        """The last 200 lines of events.jsonl, the latest last."""
        return _json(EVENTS.dump_python(self.files.view().events, mode="json", by_alias=True))

    def _page(self) -> Page:
        view = self.files.view()
        facts = self._facts(view)
        with self._lock:
            made = self._made
        if made is not None and made[0] is view and made[1] == facts:
            return made[2]
        page = page_of(view.present(facts.running), facts)
        with self._lock:
            self._made = view, facts, page
        return page

    def _facts(self, view: RunView) -> Facts:
        with self._lock:
            if time.monotonic() - self._looked_s > LOOK_EVERY_S:
                self._running = True if self.supervised else _or_none(self._runs)
                self._listed = _or_none(lambda: list(read_sites(self.coordinator).sites)) or ()
                self._wait = present_wait(self.coordinator) if self._running else None
                self._looked_s = time.monotonic()
            return Facts(
                running=self._running,
                listed=self._listed,
                wait=self._wait,
                code_fingerprint=code_fingerprint(),
                settings_sha256=settings_sha256(view.settings) if view.settings else None,
                authority=self._authority,
            )

    def _runs(self) -> bool:
        return running_pid(self.coordinator) is not None


def dashboard_server(coordinator: Coordinator, port: int, supervised: bool = False) -> LoopbackServer:
    """The page's server, which does not answer yet.

    Raises:
        RunError: FECG-691 if the port cannot be had.
    """
    return LoopbackServer(port, Dashboard(coordinator, supervised).routes(), KEY)


def serve_dashboard(coordinator: Coordinator, port: int | None, say: Callable[[str], None]) -> int:
    """Show the page until Ctrl-C, beside a study that runs, has stopped or has ended.

    Args:
        coordinator: the folder.
        port: None: dashboard-port of server.toml, or any free one where that is 0.
        say: is told where the page is.

    Raises:
        RunError: FECG-691 if the port cannot be had.
    """
    wanted = coordinator.settings.dashboard_port if port is None else port
    with serving(dashboard_server(coordinator, wanted)) as server:
        say(f"{server.url} (this machine only; Ctrl-C ends it)")
        try:
            while True:
                time.sleep(3600.0)
        except KeyboardInterrupt:
            return 0


def _or_none(ask: Callable[[], T]) -> T | None:
    """What cannot be told is left open: a page about damaged files must not be ended by them."""
    try:
        return ask()
    except (FedecgError, OSError):
        return None


def _json(tree: object) -> Answer:
    return Answer(json.dumps(tree, allow_nan=False).encode(), JSON)
