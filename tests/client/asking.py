"""A site's folder, the lock of a study, tasks of it, and a way to ask the real ClientApp; plain functions."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedecg.codes import CODES
from fedecg.config import StudySettings, load_site, parse_settings
from fedecg.errors import FedecgError
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.federation.messages import pack
from fedecg.federation.tasks import JoinTask, TrainTask
from fedecg.fingerprint import code_fingerprint
from fedecg.text import load_bank
from fedecg_client.app import app
from fedecg_client.gate import Gate
from fedecg_simulations.grid import InProcessGrid

HEADER = "record,patient,part,event,follow_up_days,age_years,female,codes\n"
ROWS = "0,1,train,1,10.0,60.0,1.0,{}\n1,2,train,0,20.0,61.0,0.0,{}\n2,3,test,0,5.0,70.0,1.0,{}\n"
NOON = datetime(2026, 5, 4, 12, 0)
NOTHING_IS_SMALL = "\n[privacy]\nthreshold-patients = 0\nthreshold-events = 0\n"
POLICY = 'studies = ["hf"]\nconsent = "first"'


def write_site(
    folder: Path,
    policy: str | None = POLICY,
    cohort: str = HEADER + ROWS,
    name: str = "north",
    privacy: str = NOTHING_IS_SMALL,
) -> Path:
    """A site's folder without a signal store; no policy: site.toml has no such section.

    Patients are made up, so that nothing is small (`privacy`).
    """
    folder.mkdir(exist_ok=True)
    section = "" if policy is None else f"\n[policy]\n{policy}\n"
    files = f'name = "{name}"\nstore = "store"\ncohort = "cohort.csv"\n'
    (folder / "site.toml").write_text(f"{files}{privacy}{section}")
    (folder / "cohort.csv").write_text(cohort)
    return folder


def study(name: str = "hf", **sections: dict[str, Any]) -> StudySettings:
    return parse_settings(StudySettings, {"name": name, **sections})


def lock_of(settings: StudySettings, **changes: Any) -> StudyLock:
    """The lock that a coordinator with this code and bank offers."""
    lock = StudyLock(
        study=settings.name,
        settings=settings_document(settings),
        bank_sha256=load_bank(settings.align.bank).sha256,
        code_fingerprint=code_fingerprint(),
        sites=["north", "south"],
    )
    return lock.model_copy(update=changes)


def task_of(lock: StudyLock, kind: type = TrainTask, **changes: Any) -> Any:
    """A task of the study, of the first alignment round unless changed."""
    common = {
        "lock_sha256": lock.sha256(),
        "stage": "align",
        "round": 1,
        "bank_sha256": lock.bank_sha256,
        "settings": lock.settings,
    }
    return kind(**{**common, **changes})


def answer(folder: Path | None, content: RecordDict, kind: str = "query.join", **config: Any) -> RecordDict:
    """What a node with this site folder sends back."""
    InProcessGrid(app, {})  # messages need the identity of a run
    message = Message(content, 1, kind)
    message.metadata.__dict__["_message_id"] = "1"
    settings = config if folder is None else {"site-folder": str(folder), **config}
    context = Context(run_id=1, node_id=1, node_config=settings, state=RecordDict(), run_config={})
    return app(message, context).content


def said(content: RecordDict) -> str:
    """The JSON of a reply."""
    return str(content.config_records["document"]["json"])


def join(folder: Path, lock: StudyLock) -> str:
    return said(answer(folder, pack(JoinTask(lock=lock))))


def train(folder: Path, task: TrainTask, weights: np.ndarray | None = None) -> RecordDict:
    return answer(folder, pack(task, weights), "train")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows: every write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def gate(folder: Path, policy: str | None = POLICY, now: datetime = NOON) -> Gate:
    """The gate of a site of this policy, at a time."""
    write_site(folder, policy)
    return Gate(folder, load_site(folder / "site.toml"), lambda: now)


def refusal(act: Callable[..., None], *arguments: Any) -> FedecgError:
    """The error with which the call ends."""
    with pytest.raises(FedecgError) as refused:
        act(*arguments)
    assert refused.value.code in CODES
    return refused.value


def out_of_hours() -> str:
    """A window of a minute, half a day from now."""
    hour = (datetime.now().hour + 12) % 24
    return f'{POLICY}\nhours = "{hour:02d}:30-{hour:02d}:31"'
