"""A disk that does not give a site's table: opening `cohort.csv` waits while a file `held` lies beside it.

In:  this folder on a process's PYTHONPATH, which has Python import this module at its start. Out: `reached-PID` beside
     the table once that process waits for it. Used by test_agent.py, so that a task lasts for as long as a test wants.

Nothing of the process is replaced: Python tells of every file before it is opened (`sys.addaudithook`), and the
process goes on by itself when the table is given. A pipe in the table's place would be refused, as it must be.
"""

import os
import sys
import time
from pathlib import Path

TABLE, HELD = "cohort.csv", "held"


def wait(event: str, arguments: tuple[object, ...]) -> None:
    """Before a file is opened."""
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    table = Path(os.fspath(arguments[0]))
    if table.name != TABLE or not (gate := table.with_name(HELD)).exists():
        return
    table.with_name(f"reached-{os.getpid()}").touch()
    while gate.exists():
        time.sleep(0.02)


sys.addaudithook(wait)
