"""The node that a site's agent was online as, kept on disk, so that one that was killed comes back at once.

In:  the site's folder. Out: state/node-id: the coordinator's number of the node, and a mark of the machine and folder
that wrote it. In a copy of the folder the file does not count: another agent with this key may be online, and what a
copy did as that node would end it. Called by the agent.
"""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from pathlib import Path

from fedecg.errors import RunError
from fedecg.files import write_whole

__all__ = ["OwnNode"]

MACHINE = Path("/etc/machine-id")


class OwnNode:
    """Its file.

    Args:
        folder: of the site.
        machine: file with an id of this machine; where it is absent or empty, the host's name stands for it.
    """

    def __init__(self, folder: Path, machine: Path = MACHINE) -> None:
        self._file = folder / "state" / "node-id"
        self._mark = _mark(folder, machine)

    def read(self) -> int | None:
        """Its number; None if there is none, or it is that of another machine or folder."""
        words = self._words()
        try:
            return int(words[0]) if words and not self.elsewhere else None
        except ValueError:
            return None

    @property
    def elsewhere(self) -> bool:
        """Whether another machine or folder wrote it; one without a mark is of an earlier version, and our own."""
        return self._words()[1:] not in ([], [self._mark])

    def keep(self, node_id: int) -> None:
        """Write it. On a full disk it stays away: after a kill this node then waits out its minute."""
        with suppress(RunError):
            write_whole(self._file, f"{node_id}\n{self._mark}\n")

    def forget(self) -> None:
        """The node is offline."""
        self._file.unlink(missing_ok=True)

    def _words(self) -> list[str]:
        try:
            return self._file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError):
            return []


def _mark(folder: Path, machine: Path) -> str:
    """Of this machine and folder; a hash, since a machine's id should not be told."""
    try:
        here = machine.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        here = ""
    return hashlib.sha256(f"{here or socket.gethostname()}\n{folder.resolve()}".encode()).hexdigest()
