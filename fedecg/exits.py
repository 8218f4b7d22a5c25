"""How every command ends: its exit status, and one message on stderr instead of a traceback.

In:  what a command does. Out: the status of design 8: 0 finished, 2 wrong use, 3 bad input, 4 refused by policy, 5
finished without some, 1 anything else, a fault that nobody foresaw among it, of which the place in the code is said and
no value (FEDECG_TRACEBACK=1 shows the traceback); with `--json` the message on stdout, too, as a document. Called by
`fedecg.command_line` and by processes that are no command of their own.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fedecg.errors import FedecgError, RunError
from fedecg.files import denied, in_words

__all__ = ["exit_status"]


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
SHOW = "FEDECG_TRACEBACK"


def exit_status(command: Callable[[], int], as_json: bool = False) -> int:
    """Run a command; whatever ends it becomes a status and a message.

    Args:
        command: does the work.
        as_json: whether whoever reads stdout expects a document: then an error is one there,
            {"code", "message", "fix"}. The message stands on stderr in any case.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C
    try:
        return command()
    except FedecgError as error:
        return _told(error, as_json)
    except BrokenPipeError:  # whoever read our output has gone
        sys.stderr.close()
        return 1
    except OSError as error:
        return _told(_not_written(error), as_json)
    except KeyboardInterrupt:
        return _told(
            RunError(
                "FECG-604",
                "run",
                found="an interruption",
                expected="time to finish",
                fix="Nothing half-written is taken for finished; prepared ECGs are kept: run it again.",
            ),
            as_json,
        )
    except Exception as error:  # its text may hold a patient's values
        return _told(_unforeseen(error), as_json)


def _unforeseen(error: Exception) -> RunError:
    if os.environ.get(SHOW) == "1":
        traceback.print_exception(error)
    return RunError(
        "FECG-599",
        "run",
        found=f"{type(error).__name__} at {_place(error)}",
        expected="none: this is a fault of fedecg",
        fix=f"Report this line. {SHOW}=1 shows the traceback, which may hold patients' values: keep that at the site.",
    )


def _place(error: Exception) -> str:
    """File and line where it was raised, of our own code if any is among the calls."""
    calls = [(frame.f_globals, frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [
        call for call in calls if str(call[0]["__name__"]).startswith("fedecg") and call[0] is not globals()
    ]
    module, code, line = (ours or calls)[-1]
    package = str(module.get("__package__") or "").replace(".", "/")
    return f"{package}/{Path(code.co_filename).name}:{line}".lstrip("/")


def _not_written(error: OSError) -> RunError:
    found, fix = in_words(error), "Mend that, and run it again."
    if error.errno in NO_ROOM:
        fix = "The disk is full: make room on it, and run it again."
    elif isinstance(error, PermissionError):
        found, fix = denied(error)
    return RunError(
        "FECG-601",
        "file or folder",
        found=found,
        expected="one that this user may use, with space left",
        fix=fix,
    )


def _told(error: FedecgError, as_json: bool) -> int:
    print(error, file=sys.stderr)
    if as_json:
        print(json.dumps({"code": error.code, "message": str(error), "fix": error.fix}, indent=2))
    return error.exit_status
