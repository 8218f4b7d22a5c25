"""How every command ends: its exit status, and one message on stderr instead of a traceback.

In:  what a command does. Out: the status of design 8: 0 finished, 2 wrong use, 3 bad input, 4 refused by policy, 5
finished without some, 1 anything else. Called by the entry points of `fedecg` and `fedecg-simulate`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from fedecg.errors import FedecgError, RunError
from fedecg.files import in_words

__all__ = ["exit_status"]


def exit_status(command: Callable[[], int]) -> int:
    """Run a command; whatever ends it becomes a status and a message."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C
    try:
        return command()
    except FedecgError as error:
        return _told(error)
    except BrokenPipeError:  # whoever read our output has gone
        sys.stderr.close()
        return 1
    except OSError as error:
        return _told(
            RunError(
                "FECG-601",
                "run folder",
                found=in_words(error),
                expected="a folder that can be written, with space left",
                fix="Choose another --out or data.store.",
            )
        )
    except KeyboardInterrupt:
        return _told(
            RunError(
                "FECG-604",
                "run",
                found="an interruption",
                expected="time to finish",
                fix="Nothing half-written is taken for finished; prepared ECGs are kept: run it again.",
            )
        )


def _told(error: FedecgError) -> int:
    print(error, file=sys.stderr)
    return error.exit_status
