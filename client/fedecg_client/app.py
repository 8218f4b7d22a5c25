"""The ClientApp of a site: one handler a task; each does it and sends nothing but its reply or a code.

In:  a message of the coordinator. Out: the reply. Run by the site's agent, by Flower's SuperNode, or by a
     simulation's grid; what protects the site is therefore here, and in no process around it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedecg.config import Section, SiteSettings, StudySettings, load_site, parse_settings
from fedecg.errors import FedecgError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.masked import CensusTask, KeysTask, UnmaskTask
from fedecg.federation.messages import pack, unpack
from fedecg.federation.sums import AssessTask
from fedecg.federation.tasks import EvaluateTask, Failure, JoinTask, SurveyTask, Task, TrainTask
from fedecg.fingerprint import code_fingerprint
from fedecg_client import alone, masks, noised, work
from fedecg_client.budget import noise_here, warn_of_strangers
from fedecg_client.departure import leave, leave_failed
from fedecg_client.explained import explain
from fedecg_client.gate import Gate
from fedecg_client.masks import under_masks
from fedecg_client.opened import state_of_data
from fedecg_client.outbox import Outbox, task_key
from fedecg_client.workplace import (
    SITES_VARIABLE,
    Workplace,
    at_work,
    left_out,
    refused,
    said,
    site_folder,
    site_state,
)

__all__ = ["SITES_VARIABLE", "app"]

UNKNOWN_FAULT = "FECG-599"

Weights = NDArray[Any] | None
Asked = TypeVar("Asked", bound=Section)
Given = TypeVar("Given", bound=Task)
Answer = Callable[[Path, SiteSettings, Asked, Weights], RecordDict]
Work = Callable[[Workplace, Given, Weights], tuple[Section, Weights]]
Handler = Callable[[Message, Context], Message]

log = logging.getLogger("fedecg.client")
app = ClientApp()


def answering(kind: type[Asked], answer: Answer[Asked]) -> Handler:
    """Make a handler that never lets an exception's text leave the site: only its code does."""

    def handle(message: Message, context: Context) -> Message:
        name, folder, site, task = "unnamed", None, None, None
        run = str(message.metadata.run_id)
        try:
            folder = site_folder(context)
            site = load_site(folder / "site.toml")
            name = site.name
            task, weights = unpack(message.content, kind)
            content = answer(folder, site, task, weights)
            leave(folder, site, task, run, content)
        except FedecgError as error:
            log.error("%s: %s", name, error)
            refused(folder, error.code)
            content = pack(Failure(site=name, failed=error.code))
        except Exception as error:
            log.error("%s: %s at %s", name, type(error).__name__, _place(error))
            content = pack(Failure(site=name, failed=UNKNOWN_FAULT))
        else:
            return Message(content, reply_to=message)
        return Message(_recorded(folder, site, task, run, content), reply_to=message)

    return handle


def _recorded(
    folder: Path | None, site: SiteSettings | None, task: Section | None, run: str, failure: RecordDict
) -> RecordDict:
    """A failure that is in the site's record of what leaves, or the one that says that the record cannot be written."""
    if folder is None or site is None:
        return failure
    try:
        leave_failed(folder, site, task, run, failure)
    except FedecgError as error:
        log.error("%s: %s", site.name, error)
        return pack(Failure(site=site.name, failed=error.code))
    except Exception as error:
        log.error("%s: %s at %s", site.name, type(error).__name__, _place(error))
        return pack(Failure(site=site.name, failed=UNKNOWN_FAULT))
    return failure


def join(folder: Path, site: SiteSettings, task: JoinTask, weights: Weights) -> RecordDict:
    """Take part in a study that the policy allows."""
    Gate(folder, site).admit_study(task.lock)
    study = parse_settings(StudySettings, task.lock.settings)
    if study.privacy.mode == "sample":
        noise_here(folder, site, study, task.run)  # the whole study fits, or the site does not join
        warn_of_strangers(folder, site)
    reply = pack(*work.join(Workplace(folder), task, weights))
    log.info("%s: takes part in study %s", site.name, study.name)
    return reply


def once(do: Work[Given]) -> Answer[Given]:
    """Do a task that the policy allows; if it was done before, send the reply that was kept."""

    def answer(folder: Path, site: SiteSettings, task: Given, weights: Weights) -> RecordDict:
        gate, outbox = Gate(folder, site), Outbox(site_state(folder) / "replies")
        gate.admit(task)
        outbox.acknowledge(task.accepted.get(site.name))
        left_out(folder, site.name, task)
        key = task_key(task, weights, state_of_data(folder), code_fingerprint())
        kept = outbox.find(key)
        if kept is not None:
            log.info("%s: this task was done before; its reply is sent again", site.name)
            return under_masks(folder, site, task, weights, kept)
        gate.admit_work(task, key)
        with said(site.name, task), at_work(folder, task, key, site.policy.keep_replies) as place:
            content = pack(*do(place, task, weights))
            if site.policy.keep_replies:
                outbox.keep(key, content)
        return under_masks(folder, site, task, weights, content)

    return answer


def keys(folder: Path, site: SiteSettings, task: KeysTask, weights: Weights) -> RecordDict:
    """The site's key for the masked sums of a run."""
    del weights
    Gate(folder, site).admit(task)
    return pack(masks.keys(folder, site, task))


def unmask(folder: Path, site: SiteSettings, task: UnmaskTask, weights: Weights) -> RecordDict:
    """Open a masked sum that the site has a part in."""
    del weights
    Gate(folder, site).admit(task)
    return pack(masks.unmask(folder, site, task))


def by_mode(plain: Work[Given], private: Work[Given]) -> Work[Given]:
    """What the study's `privacy.mode` asks for."""

    def do(place: Workplace, task: Given, weights: Weights) -> tuple[Section, Weights]:
        return (private if noised.is_private(task) else plain)(place, task, weights)

    return do


def _place(error: Exception) -> str:
    """File and line of the fault, without the values that a traceback would show."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "unknown place"


app.query("join")(answering(JoinTask, join))
app.query("keys")(answering(KeysTask, keys))
app.query("unmask")(answering(UnmaskTask, unmask))
app.query("census")(answering(CensusTask, once(work.census)))
app.query("assess")(answering(AssessTask, once(work.assess)))
app.query("baselines")(answering(BaselinesTask, once(alone.baselines)))
app.query("explain")(answering(ExplainTask, once(explain)))
app.query("survey")(answering(SurveyTask, once(by_mode(work.survey, noised.survey))))
app.train()(answering(TrainTask, once(by_mode(work.train, noised.train))))
app.evaluate()(answering(EvaluateTask, once(by_mode(work.evaluate, noised.evaluate))))
