"""A disk that keeps a process waiting for one file while a file `held` lies beside it: a moment as long as wanted.

In:  this folder on a process's PYTHONPATH, which has Python import this module at its start. Out: `reached-PID` beside
     the file once that process waits for it. Used by test_agent.py (a site's table: a task that lasts) and by chaos
     (the coordinator's book of rounds: replies that are taken and averaged, and nothing of it on the disk).

Nothing of the process is replaced: Python tells of every file before it is opened (`sys.addaudithook`), and the
process goes on by itself when the file is given. A pipe in the table's place would be refused, as it must be.
"""

import os
import re
import sys
import time
from pathlib import Path

# A site's table; what the coordinator's book of rounds is written to before it takes the place of the one before.
WAITED_FOR, HELD = re.compile(r"cohort\.csv|\.rounds\.json\.\d+\.part"), "held"


def wait(event: str, arguments: tuple[object, ...]) -> None:
    """Before a file is opened."""
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    file = Path(os.fspath(arguments[0]))
    if not WAITED_FOR.fullmatch(file.name) or not (gate := file.with_name(HELD)).exists():
        return
    file.with_name(f"reached-{os.getpid()}").touch()
    while gate.exists():
        time.sleep(0.02)


sys.addaudithook(wait)
