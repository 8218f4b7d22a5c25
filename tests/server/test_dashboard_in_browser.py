"""The dashboard in a real browser, where there is one: wide and on a phone, light and dark, while a study runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from chromium_pipe import BROWSER, Chromium
from coordinator_process import free_port
from watched_run import WatchedRun

from fedecg.config import StudySettings
from fedecg_server.coordinator import Coordinator, CoordinatorSettings
from fedecg_server.dashboard import dashboard_server
from fedecg_server.loopback_http import Answer, LoopbackServer, serving

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")

LONG = "a-hospital-with-a-name-as-long-as-settings-allow-0123456789-abcd"
SITES = ("city", "coast", LONG, "valley")
# Whatever sticks out of the window, except within a table that can be moved.
WIDE = """[...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll")
  && !element.closest(".unseen") && element.getBoundingClientRect().right > innerWidth + 1)
  .map(element => element.outerHTML.slice(0, 120))"""
# Texts of a chart that touch each other or leave it.
CLASHES = """[...document.querySelectorAll("figure > svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  const out = texts.filter(([_, box]) =>
    box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom + 1);
  const touching = texts.flatMap(([a, one], i) => texts.slice(i + 1).filter(([_, other]) =>
    one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom)
    .map(([b]) => [a, b]));
  return [...out.map(([text]) => text), ...touching];
})"""
# Smallest contrast of any text with its ground (WCAG 2.2: 4.5 for text of this size).
CONTRAST = """(() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const bright = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = element => { for (let e = element; e; e = e.parentElement) {
    const rgb = parse(getComputedStyle(e).backgroundColor); if (rgb.length < 4 || rgb[3] > 0) return rgb; } };
  return Math.min(...[...document.querySelectorAll("main *")].filter(e => e.checkVisibility()
      && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const style = getComputedStyle(e), back = bright(ground(e));
    const text = bright(parse(e.closest("svg") ? style.fill : style.color));
    return (Math.max(text, back) + .05) / (Math.min(text, back) + .05); }));
})()"""


# Ten pages' seconds a second: the page asks every 200 ms.
HASTE = "{ const later = setTimeout; globalThis.setTimeout = (what, ms) => later(what, ms / 10); }"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        browser.before_every_page(HASTE)
        yield browser


@pytest.fixture
def browser(chromium: Chromium, server: LoopbackServer) -> Iterator[Chromium]:
    """The browser, which leaves the page before its server goes."""
    yield chromium
    chromium.leave()


@pytest.fixture
def run(tmp_path: Path) -> WatchedRun:
    run = WatchedRun(tmp_path / "run", StudySettings(name="watched", seed=1), SITES)
    run.begin()
    run.play("align", 10, of=10)
    run.play("survival", 7, of=10, late=["valley"], rejected={"coast": "FECG-545"})
    run.journal.event("rejected", site="coast", code="FECG-545")
    run.journal.enter("survival", 10, 8)
    run.wait(["valley"], 34.0, 600.0)
    return run


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, CoordinatorSettings(name="127.0.0.1"))


@pytest.fixture
def server(coordinator: Coordinator) -> Iterator[LoopbackServer]:
    with serving(dashboard_server(coordinator, 0, supervised=True)) as server:
        yield server


def pictured(browser: Chromium, name: str) -> None:
    """Keep a picture for whoever asks for it: FEDECG_PICTURES=DIR."""
    folder = os.environ.get("FEDECG_PICTURES")
    if folder:
        browser.picture(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("moment", ["running", "finished"])
def test_nothing_sticks_out_clashes_or_fades(
    browser: Chromium, server: LoopbackServer, run: WatchedRun, width: int, dark: bool, moment: str
) -> None:
    if moment == "finished":
        run.play("survival", 3, of=10, first=8)
        run.finish(best=9)
    browser.open(server.url, width, dark)
    pictured(browser, f"dashboard-{moment}-{width}-{'dark' if dark else 'light'}")
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(WIDE) == []
    assert browser.value(CLASHES) == []
    assert browser.value(CONTRAST) >= 4.5
    assert browser.value("document.querySelectorAll('figure > svg').length") == 3
    for table in ("sites", "events"):  # the others can be moved on a phone
        assert browser.value(
            f"(table => table.scrollWidth <= table.clientWidth)(document.getElementById('{table}'))"
        )
    assert browser.said == []


def test_the_checks_above_see_a_page_that_is_too_wide_clashes_and_fades(
    browser: Chromium, server: LoopbackServer, run: WatchedRun
) -> None:
    browser.open(server.url, 390)
    browser.value("document.querySelector('h1').style.width = '500px'")
    assert len(browser.value(WIDE)) == 1
    browser.value(
        "document.querySelectorAll('figure > svg text').forEach(text => text.setAttribute('y', '50'))"
    )
    assert browser.value(CLASHES)
    browser.value("document.querySelector('h1').style.color = '#ccc'")
    assert browser.value(CONTRAST) < 4.5


def test_it_follows_the_study_without_being_reloaded(
    browser: Chromium, server: LoopbackServer, run: WatchedRun
) -> None:
    browser.open(server.url, 1280)
    browser.value("window.same = true")
    browser.value("window.said = document.getElementById('said').firstChild")
    assert browser.value("document.title") == "running · watched"
    run.play("survival", 1, of=10, first=8)
    browser.until("document.getElementById('rounds').innerText.includes('0.697')", within_s=6.0)
    assert browser.value("document.getElementById('c-index').innerText").count("0.697") >= 1
    assert browser.value("window.said === document.getElementById('said').firstChild")  # not read out again
    run.finish(best=7)
    browser.until("document.getElementById('said').textContent === 'Completed.'", within_s=6.0)
    assert browser.value("document.title") == "completed · watched"
    assert browser.value("window.same") is True
    assert browser.said == []


def test_it_says_when_nobody_answers_and_when_somebody_does_again(
    browser: Chromium, coordinator: Coordinator, run: WatchedRun
) -> None:
    port = free_port()
    with serving(dashboard_server(coordinator, port, supervised=True)) as server:
        browser.open(server.url, 390)
        assert browser.value("document.getElementById('gone').hidden") is True
    browser.until("!document.getElementById('gone').hidden", within_s=8.0)
    told = browser.value("document.getElementById('gone').textContent")
    assert browser.value("/^No answer since \\d\\d:\\d\\d:\\d\\d UTC: what stands below is old\\./.test("
                         "document.getElementById('gone').textContent)"), told  # fmt: skip
    pictured(browser, "dashboard-gone-390-light")
    with serving(dashboard_server(coordinator, port, supervised=True)):
        browser.until("document.getElementById('gone').hidden", within_s=8.0)


def test_a_hostile_name_runs_nothing_and_an_inserted_script_would_not_either(
    browser: Chromium, coordinator: Coordinator, server: LoopbackServer
) -> None:
    name = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    run = WatchedRun(coordinator.run, StudySettings(name="watched", seed=1), (name, "city"))
    run.begin()
    run.play("survival", 2, of=10, rejected={name: name})
    run.journal.mark("city", "rejected", name)
    run.wait([name], 5.0, 60.0)
    browser.open(server.url, 1280)
    run.journal.event("refused", site=name, code=name)
    browser.until("document.getElementById('events').innerText.includes('was not admitted')", within_s=6.0)
    assert browser.value("window.hacked === undefined && document.images.length === 0")
    assert name in browser.value("document.getElementById('sites').innerText")
    browser.said.clear()
    browser.value(
        "document.getElementById('sites').innerHTML = \"<img src='data:,' onerror='window.hacked=1'>\""
    )
    browser.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked=1'}))"
    )
    browser.value("new Promise(done => setTimeout(done, 3000))")
    assert browser.value("window.hacked === undefined")
    assert any("Content Security Policy" in line for line in browser.said)


def test_a_keyboard_reaches_every_table_and_keeps_its_place(
    browser: Chromium, server: LoopbackServer, run: WatchedRun
) -> None:
    browser.open(server.url, 390)
    reached = []
    for _ in range(7):
        browser.press_tab()
        reached.append(
            browser.value(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
            )
        )
    assert reached == ["Sites", "Rounds", "Losses by site and round", "Events", "status", "rounds", "events"]
    browser.value("document.getElementById('rounds').focus()")
    browser.value("document.getElementById('rounds').scrollLeft = 40")
    run.play("survival", 1, of=10, first=8)
    browser.until("document.getElementById('rounds').innerText.includes('0.697')", within_s=6.0)
    assert browser.value("document.activeElement.id") == "rounds"
    assert browser.value("document.getElementById('rounds').scrollLeft") == 40


def test_a_screen_reader_is_told_names_and_headers(
    browser: Chromium, server: LoopbackServer, run: WatchedRun
) -> None:
    browser.open(server.url, 1280)
    tree = browser.do("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]
    }
    roles = [role for role, _ in named]
    for label in ("Sites", "Rounds", "Losses by site and round", "Events"):
        assert ("region", label) in named
    assert any(role == "image" and name.startswith("C-index by round") for role, name in named)
    assert any(role == "progressbar" and name.startswith("17 of 20 rounds done") for role, name in named)
    assert "columnheader" in roles
    assert "rowheader" in roles
    assert "status" in roles
    assert all(browser.value("[...document.querySelectorAll('th')].map(head => head.scope !== '')"))
    headings = browser.value("[...document.querySelectorAll('h1, h2')].map(head => head.innerText)")
    assert headings == ["watched", "Sites", "C-index", "Loss", "Rounds", "Losses", "Events", "Fingerprints"]
    ids = browser.value("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_it_asks_every_two_seconds(tmp_path: Path, coordinator: Coordinator, run: WatchedRun) -> None:
    server = dashboard_server(coordinator, 0, supervised=True)
    asked_s: list[float] = []
    answer = server.routes["/parts.json"]

    def counted() -> Answer:
        asked_s.append(time.monotonic())
        return answer()

    server.routes = {**server.routes, "/parts.json": counted}
    with serving(server), Chromium(tmp_path / "chromium") as browser:
        browser.open(server.url, 1280)
        time.sleep(9.0)
    pauses = [later - earlier for earlier, later in pairwise(asked_s)]
    assert len(pauses) >= 3
    assert all(1.9 < pause < 3.0 for pause in pauses)
