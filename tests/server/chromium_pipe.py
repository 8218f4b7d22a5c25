"""A headless Chromium that a test can talk to: pages of any size, in light and dark, while they live.

The browser of tests/report/test_report_in_browser.py, over its DevTools pipe: a window of 390 px cannot be had, but can
be emulated, and a page that refreshes itself can be watched.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

BROWSER = shutil.which("chromium")
END = b"\0"


class Chromium:
    """One browser with one page; in a `with` statement.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        switches = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
            *(
                "--disable-background-networking",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                "about:blank",
            ),
        )
        # The browser reads its orders from descriptor 3 and answers on 4.
        command = ["bash", "-c", f'exec 3<&{read} 4>&{write}; exec "$0" "$@"', str(BROWSER), *switches]
        self.process = subprocess.Popen(
            command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self._rest, self._number = b"", 0
        self.said: list[str] = []  # what the page's console was told, and what its policy refused
        target = next(t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attach = {"targetId": target["targetId"], "flatten": True}
        self._session = self._ask("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.do(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        try:
            self.process.wait(5.0)  # it ends when its pipe does
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def do(self, method: str, **facts: Any) -> dict[str, Any]:
        """One order to the page; its answer."""
        return self._ask(method, self._session, **facts)

    def open(self, url: str, width: int, dark: bool = False) -> None:
        """Load a page; waits until it has."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.do("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])
        self.do("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def leave(self) -> None:
        """Close the page and forget what it said."""
        self.do("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.said.clear()

    def before_every_page(self, script: str) -> None:
        """Run a script before those of every page that is opened from now on."""
        self.do("Page.addScriptToEvaluateOnNewDocument", source=script)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        answer = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, within_s: float = 10.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + within_s
        while not self.value(script):
            assert time.monotonic() < end, (
                f"not within {within_s} s: {script}; {self.value('document.body.innerText')}"
            )
            time.sleep(0.05)

    def press_tab(self) -> None:
        """The tab key."""
        for kind in ("keyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self.do("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, session: str | None = None, **facts: Any) -> dict[str, Any]:
        self._number += 1
        order = {"id": self._number, "method": method, "params": facts} | (
            {"sessionId": session} if session else {}
        )
        os.write(self._to, json.dumps(order).encode() + END)
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def _read(self) -> dict[str, Any]:
        while END not in self._rest:
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(END)
        return dict(json.loads(line))

    def _note(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        if message.get("method") == "Log.entryAdded":
            self.said.append(str(facts["entry"]["text"]))
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(str(facts["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(facts["exceptionDetails"]))
