"""Files that never open: pipes are refused at once, and Ctrl-C ends a command whose readers hang."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedecg.prediction.readers import PATIENCE_S, Readers

# Readers that open a pipe which nobody writes to, as a file on a network folder that has gone.
HUNG = """
import sys
from fedecg.exits import exit_status
from fedecg.prediction.readers import Readers

def command():
    with Readers(2) as readers:
        waiting = [readers.submit(lambda: open(sys.argv[1], "rb")) for _ in range(3)]
        print("waiting", flush=True)
        return waiting[0].result()

sys.exit(exit_status(command))
"""
# The same in the command itself: the file is a pipe by the time that it is opened.
HUNG_COMMAND = """
import sys
import fedecg.prediction.files as files
from fedecg.cli import main

def hang(name):
    print("waiting", flush=True)
    return open(sys.argv[-1], "rb")

files.read_recording = hang
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "rec.hea")
    return tmp_path / "rec.hea"


def interrupted(words: list[str], by: signal.Signals) -> tuple[int, str, float]:
    """Exit status, stderr and seconds of a command that is interrupted once it says that it waits."""
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a script ignores Ctrl-C, and its children inherit that: a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.1)  # for the other readers to hang as well
            start = time.monotonic()
            process.send_signal(by)
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    return process.returncode, told, time.monotonic() - start


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_ends_readers_that_hang(pipe: Path, by: signal.Signals) -> None:
    status, told, seconds = interrupted(["-c", HUNG, str(pipe)], by)
    assert (status, told.split(":")[0]) == (1, "FECG-604 run")
    assert seconds < PATIENCE_S + 1.5


def test_readers_give_results_and_errors_and_end() -> None:
    with Readers(3) as readers:
        futures = [readers.submit(lambda number=number: 1 / number) for number in (1, 2, 0, 4)]
        assert [future.result() for future in futures if future is not futures[2]] == [1, 0.5, 0.25]
        with pytest.raises(ZeroDivisionError):
            futures[2].result()
    assert not any(thread.is_alive() for thread in readers._threads)


def test_what_has_not_begun_is_dropped_after_an_error() -> None:
    done: list[int] = []

    def slow(number: int) -> None:
        time.sleep(0.05)
        done.append(number)

    futures = []

    def command() -> None:
        with Readers(1) as readers:
            futures.extend(readers.submit(lambda number=number: slow(number)) for number in range(50))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command()
    assert len(done) <= 1
    assert all(future.done() for future in futures)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_ends_predict_whose_readers_hang(
    model_folder: Path, pipe: Path, by: signal.Signals
) -> None:
    status, told, seconds = interrupted(["-c", HUNG_COMMAND, "predict", str(model_folder), str(pipe)], by)
    assert (status, told.split(":")[0]) == (1, "FECG-604 run")
    assert seconds < PATIENCE_S + 3


@pytest.mark.slow
def test_a_pipe_as_a_record_ends_every_command_with_its_code(model_folder: Path, pipe: Path) -> None:
    table = pipe.with_name("cohort.csv")
    table.write_text("patient,file,event,follow_up_days\na,rec,1,100\n")
    fedecg = shutil.which("fedecg", path=str(Path(sys.executable).parent))
    assert fedecg
    for words in (
        ["predict", model_folder, pipe, "--json"],
        ["explain", model_folder, pipe, "--out", pipe.with_name("page.html")],
        ["draw", pipe, "--out", pipe.with_name("page.pdf")],
        ["evaluate", model_folder, table, "--records", pipe.parent],
    ):
        done = subprocess.run(
            [fedecg, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 3, words
        assert "FECG-201" in done.stdout + done.stderr or "none of whom has an ECG" in done.stderr, words
