"""The ClientApp of a site: one handler a task; each does it and sends nothing but its reply or a code.

In:  a message of the coordinator. Out: the reply. Run by Flower's SuperNode, or by a simulation's grid.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedecg.config import Section, load_site
from fedecg.errors import FedecgError, SettingsError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.messages import EvaluateTask, Failure, JoinTask, SurveyTask, TrainTask, pack, unpack
from fedecg.federation.sums import AssessTask
from fedecg_client import work

__all__ = ["SITES_VARIABLE", "app"]

SITES_VARIABLE = "FEDECG_SITES"  # folder of site folders: for engines that only number their nodes
UNKNOWN_FAULT = "FECG-599"

Weights = NDArray[np.float32] | None
Task = TypeVar("Task", bound=Section)
Work = Callable[[Path, Task, Weights], tuple[Section, Weights]]
Handler = Callable[[Message, Context], Message]

log = logging.getLogger("fedecg.client")
app = ClientApp()


def answering(kind: type[Task], do: Work[Task]) -> Handler:
    """Make a handler that never lets an exception's text leave the site: only its code does."""

    def handle(message: Message, context: Context) -> Message:
        site = "unnamed"
        try:
            folder = site_folder(context)
            site = load_site(folder / "site.toml").name
            reply, weights = do(folder, *unpack(message.content, kind))
            content = pack(reply, weights)
        except FedecgError as error:
            log.error("%s: %s", site, error)
            content = pack(Failure(site=site, failed=error.code))
        except Exception as error:
            log.error("%s: %s at %s", site, type(error).__name__, _place(error))
            content = pack(Failure(site=site, failed=UNKNOWN_FAULT))
        return Message(content, reply_to=message)

    return handle


def site_folder(context: Context) -> Path:
    """The site's folder: from the node's own settings, or the n-th of `FEDECG_SITES`.

    Raises:
        SettingsError: FECG-105 if neither is given.
    """
    named = context.node_config.get("site-folder")
    if isinstance(named, str):
        return Path(named)
    sites, number = os.environ.get(SITES_VARIABLE), context.node_config.get("partition-id")
    if sites and isinstance(number, int):
        return sorted(folder.parent for folder in Path(sites).glob("*/site.toml"))[number]
    raise SettingsError(
        "FECG-105",
        "site folder",
        found="none",
        expected="node-config site-folder",
        fix="Start the node with --node-config 'site-folder=\"/path\"'.",
    )


def _place(error: Exception) -> str:
    """File and line of the fault, without the values that a traceback would show."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "unknown place"


app.query("join")(answering(JoinTask, work.join))
app.query("assess")(answering(AssessTask, work.assess))
app.query("explain")(answering(ExplainTask, work.explain))
app.query("survey")(answering(SurveyTask, work.survey))
app.train()(answering(TrainTask, work.train))
app.evaluate()(answering(EvaluateTask, work.evaluate))
