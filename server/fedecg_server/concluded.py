"""What of a run's conclusion is done: a coordinator that was killed neither asks again nor trains again.

In:  answers to a question that was asked of all sites; a model that was trained again with another seed.
Out: the same, when the run is resumed and comes to the same question or repetition. Files in `state/concluded`.
Called by the questions and by the repetitions. The checkpoint holds the rounds; this, what comes after them.

A file counts only for the run and the very task that it was written for, so that a run that was resumed ends with the
bits of one that was not. One that is damaged is as if it were not there: the question is asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fedecg.config import Section
from fedecg.federation.rounds import RoundRecord
from fedecg.files import write_whole
from fedecg_server.array_file import DamagedError, read_arrays, write_arrays
from fedecg_server.shelf import Shelved

__all__ = ["NOTHING", "Answers", "Concluded", "Repetition", "forget", "key_of"]

FOLDER = "state/concluded"
OF_EARLIER_REPLIES = {"accepted", "rejected"}  # fields of a task that do not change what it asks
VECTOR = "vector"


class Answers(Section):
    """What came of a question, before the coordinator made anything of it."""

    run: str
    replies: dict[str, str]  # site -> its checked document
    failed: dict[str, str]  # site -> code
    received: dict[str, str]  # site -> sha256 of its reply, with which the next task acknowledges it


class Repetition(Section):
    """How the study was trained once more; the vector lies beside it."""

    run: str
    records: list[dict[str, Any]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Concluded:
    """The files of one run.

    Args:
        folder: of the run; None: nothing is kept, nor found (simulations).
        run: its random name.
    """

    folder: Path | None
    run: str

    def answers(self, question: str) -> Answers | None:
        """To a question, if it was answered.

        Args:
            question: key, as `key_of` makes it.
        """
        if self.folder is None:
            return None
        try:
            found = Answers.model_validate_json((self.folder / FOLDER / f"{question}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.run == self.run else None

    def keep_answers(
        self,
        question: str,
        replies: Mapping[str, Section],
        failed: Mapping[str, str],
        received: Mapping[str, str],
    ) -> bool:
        """Whether they were kept.

        Raises:
            RunError: FECG-601 if they cannot be written.
        """
        if self.folder is None:
            return False
        documents = {site: reply.model_dump_json(by_alias=True) for site, reply in replies.items()}
        answers = Answers(run=self.run, replies=documents, failed=dict(failed), received=dict(received))
        write_whole(self.folder / FOLDER / f"{question}.json", answers.model_dump_json(by_alias=True))
        return True

    def repetition(self, number: int) -> tuple[Repetition, Shelved] | None:
        """The study trained once more, if that was finished."""
        if self.folder is None:
            return None
        try:
            document, arrays = read_arrays(self._file(number))
            found = Repetition.model_validate_json(document)
            return (found, arrays[VECTOR]) if found.run == self.run else None
        except (OSError, DamagedError, ValidationError, KeyError):
            return None

    def keep_repetition(
        self, number: int, vector: Shelved, records: list[RoundRecord], seconds: dict[str, float]
    ) -> None:
        """Its chosen weights, its part of the book, and the time it took.

        Raises:
            RunError: FECG-601 if they cannot be written.
        """
        if self.folder is not None:
            entries = [record.entry() for record in records]
            document = Repetition(run=self.run, records=entries, seconds=seconds)
            write_arrays(self._file(number), {VECTOR: vector}, document.model_dump_json(by_alias=True))

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / FOLDER / f"seed-{number}.safetensors"


NOTHING = Concluded(None, "")


def key_of(kind: str, task: Section, vector: NDArray[np.float32] | Shelved) -> str:
    """What makes two questions the same: kind, document and weights."""
    document = json.loads(task.model_dump_json(by_alias=True, exclude=OF_EARLIER_REPLIES))
    digest = hashlib.sha256(json.dumps([kind, document], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(np.asarray(vector)).data)
    return digest.hexdigest()


def forget(run_folder: Path) -> None:
    """Remove what an earlier run in this folder has left."""
    for file in (run_folder / FOLDER).glob("*"):
        file.unlink(missing_ok=True)
