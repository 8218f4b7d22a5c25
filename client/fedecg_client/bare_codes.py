"""Codes that leave without the ClientApp, in the record of what leaves: it was not there to write them down.

In:  a reply of the agent's or the worker's own: a foreign bundle, a worker that died, a task too long, a stop. Out: a
     line in state/egress/egress.jsonl. Called by the agent before such a reply is sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedecg.config import SiteSettings
from fedecg.privacy.egress import Departure, EgressRecord
from fedecg_client.site_status import now

if TYPE_CHECKING:
    from fedecg_client.wire import Reply

__all__ = ["record_bare_code"]


def record_bare_code(folder: Path, site: SiteSettings, reply: Reply) -> None:
    """A line for a reply that is an error; nothing for any other, which the app has recorded.

    Args:
        folder: of the site.
        site: its settings.
        reply: that is about to be sent.

    Raises:
        PolicyError: FECG-448.
    """
    head = reply.request.messages_list[0]
    if not head.HasField("error"):
        return
    EgressRecord(folder / "state" / "egress").append(
        Departure(
            at=now(),
            to=site.server.address if site.server else "",
            run=str(reply.run_id),
            kind="Failure",
            bytes=sum(map(len, reply.contents.values())),
            sha256=reply.request.message_object_trees[0].object_id,
            values={"failed": head.error.reason},
        )
    )
