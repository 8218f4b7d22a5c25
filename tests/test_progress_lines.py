"""What long work says of itself where there is no terminal: how far, how long, how long still."""

from io import StringIO

import pytest
from rich.console import Console

from fedecg import progress as progress_module
from fedecg.progress import Progress


def test_lines_tell_the_time_left_and_the_last_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    told = StringIO()
    with Progress(console=Console(file=told, width=200)).task("reading ECGs", 4) as advance:
        for done in range(1, 5):
            now[0] += 10.0
            advance(done, "one refused" if done == 4 else "")
    assert told.getvalue().splitlines() == [
        "reading ECGs: 1/4, 10 s, about 30 s left",
        "reading ECGs: 2/4, 20 s, about 20 s left",
        "reading ECGs: 3/4, 30 s, about 10 s left",
        "reading ECGs: 4/4, 40 s  one refused",
    ]
