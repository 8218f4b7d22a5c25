"""The message that a site is answering, kept on disk until its reply is sent, so that a killed agent goes on with it.

In:  a pulled message (its head and tree; its objects stay at the coordinator until the reply has been sent), and how
     its reply was announced. Out: state/in-hand.json. Called by the agent.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg_client.site_status import SiteStatus

if TYPE_CHECKING:
    from fedecg_client.wire import Announced, Received, Reply

__all__ = ["InHand", "Kept"]

STILL_ONLINE_S = 50.0  # Flower counts a node as online for 60 s after its last sign of life


@dataclass
class InHand:
    """The message that is being answered, and how far it is."""

    received: Received
    begun: int = 0  # times that a worker was given it, over restarts of the agent
    deaths: int = 0  # workers that died of it, of this agent
    reply: Reply | None = None
    seconds: float = 0.0
    announced: Announced | None = None  # its reply, if the coordinator knows of it
    sent: bool = False  # whole


class Kept:
    """Its file. The file's time is that of the coordinator's last answer: as long as it counts the node as online, it
    waits for this message."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def keep(self, hand: InHand) -> None:
        """Write it. A full disk does not stop the work: a killed agent then loses the message, as without a file."""
        message = b64encode(hand.received.to_bytes()).decode()
        with suppress(RunError):
            announced = hand.announced.document() if hand.announced else None
            document = {"begun": max(1, hand.begun), "message": message, "announced": announced}
            write_whole(self.file, json.dumps(document))

    def touch(self) -> None:
        """The coordinator has answered (called in any thread)."""
        with suppress(OSError):
            os.utime(self.file)

    def forget(self) -> None:
        """It is answered, or no longer wanted."""
        self.file.unlink(missing_ok=True)

    def left(self, status: SiteStatus) -> InHand | None:
        """What an agent that was killed had in hand, if the coordinator waits for it still."""
        from fedecg_client.wire import Announced, Received

        try:
            age_s = time.time() - self.file.stat().st_mtime
            document = json.loads(self.file.read_text(encoding="utf-8"))
            received = Received.from_bytes(b64decode(document["message"]))
            announced = Announced.from_document(told) if (told := document.get("announced")) else None
            if 0 <= age_s < STILL_ONLINE_S and received.object_ids:
                status.event("resume", begun=document["begun"])
                return InHand(received, begun=int(document["begun"]), announced=announced)
        except FileNotFoundError:
            return None
        except Exception:  # damaged, whatever way: then it is as if it had not been there
            status.event("dropped", why="damaged")
        self.forget()
        return None
