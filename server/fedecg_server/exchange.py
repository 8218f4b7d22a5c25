"""One exchange with the sites: send, wait no longer than the deadline, return what came.

In:  a Flower `Grid` and messages. Out: replies in a fixed order. Called by the strategy and by the app.
Only the public push and pull of the Grid are used: its own send_and_receive sleeps 3 s between looks
and, without a deadline, waits for ever for a site that has gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["send_and_receive", "wait_for_nodes"]

FIRST_LOOK_S, LONGEST_LOOK_S, SHARE_OF_ELAPSED = 0.05, 2.0, 0.02


def send_and_receive(grid: Grid, messages: Iterable[Message], deadline_s: float) -> list[Message]:
    """Send messages; return the replies that came before the deadline, in the order of node ids.

    Args:
        grid: the Flower grid of the run.
        messages: one a site.
        deadline_s: bound on the wait, in seconds; a site that has not answered then is simply missing.
    """
    start = time.monotonic()
    pending = {identity for identity in grid.push_messages(list(messages)) if identity}
    replies: list[Message] = []
    while pending:
        for reply in grid.pull_messages(pending):
            pending.discard(reply.metadata.reply_to_message_id)
            replies.append(reply)
        elapsed = time.monotonic() - start
        if pending and elapsed >= deadline_s:
            break
        if pending:
            time.sleep(min(LONGEST_LOOK_S, max(FIRST_LOOK_S, SHARE_OF_ELAPSED * elapsed)))
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def wait_for_nodes(grid: Grid, quorum: int, deadline_s: float) -> list[int]:
    """Node ids once at least `quorum` are connected, or those there are when the deadline has passed."""
    start = time.monotonic()
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= quorum or time.monotonic() - start >= deadline_s:
            return nodes
        time.sleep(FIRST_LOOK_S)
