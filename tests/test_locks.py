"""One process a folder, whoever it is and however it ends."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedecg import locks
from fedecg.locks import LockHeldError, StopError, UnknownHolderError, ask_to_stop, held, holder

HOLD = """
import signal, sys, time
from pathlib import Path
from fedecg.locks import held
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "state" / "one.lock"


@pytest.fixture
def other(lock: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    kind = getattr(request, "param", "usual")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock), kind], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_refused_and_the_first_is_named(lock: Path, other: subprocess.Popen[str]) -> None:
    assert holder(lock) == other.pid
    with pytest.raises(LockHeldError), held(lock):
        pass


def test_a_killed_holder_leaves_the_lock_free(lock: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    assert lock.with_suffix(".pid").exists()
    assert holder(lock) is None
    with held(lock):
        assert holder(lock) is not None


def test_a_number_of_a_process_that_does_not_have_the_lock_is_not_believed(
    lock: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TRY_S", 0.25)  # several looks at each text
    for text in ("1\n", "-1\n", "0\n", "x"):
        lock.with_suffix(".pid").write_text(text)
        with pytest.raises(UnknownHolderError):
            holder(lock)


def test_whoever_holds_it_is_asked_to_stop(lock: Path, other: subprocess.Popen[str]) -> None:
    assert ask_to_stop(lock, 10.0)
    assert other.wait(timeout=10) != 0
    assert not ask_to_stop(lock, 10.0)


@pytest.mark.parametrize("other", ["deaf"], indirect=True)
def test_a_holder_that_goes_on_is_said(lock: Path, other: subprocess.Popen[str]) -> None:
    start = time.monotonic()
    with pytest.raises(StopError, match="still runs 0 s after it was asked") as caught:
        ask_to_stop(lock, 0.3)
    assert caught.value.pid == other.pid
    assert time.monotonic() - start < 5.0


def test_nobody_holds_a_lock_that_was_never_made(lock: Path) -> None:
    assert holder(lock) is None
