"""Where a study stands, in one file that appears whole or not at all: what a coordinator that was killed goes on from.

In:  the weights, the baseline hazard, the best weights so far, the book of rounds. Out: `state/checkpoint.safetensors`
in the run folder, replaced after every round: arrays, and a JSON document with their sha256 (`array_file`).
Called by the study. Everything else follows from the settings and the seed, so that a study that was resumed ends
with the same bits as one that was not. No pickle: arrays and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedecg.config import Section, Stage
from fedecg.errors import RunError
from fedecg.federation.documents import JoinedPart, LedgerHead, PartCounts, RiskMoments
from fedecg.federation.lock import StudyLock
from fedecg.federation.noised import NoisedSurveyReply
from fedecg.federation.tasks import SurveyReply
from fedecg.files import in_words
from fedecg_server.array_file import DamagedError, Stored, read_arrays, write_arrays
from fedecg_server.between_rounds import RememberedDocument
from fedecg_server.shelf import Shelved

__all__ = ["BestDocument", "RunState", "read_state", "write_state"]

STATE = "state/checkpoint.safetensors"


class BestDocument(Section):
    """The weights that validation judged best so far; the vector is the array `best`."""

    rounds: int
    score: float | None  # None: none could be compared
    moments: list[RiskMoments]


class RunState(Section):
    """All but the arrays. `arrays` are named `align`, `survival` (weights), `best`, `cumulative`, `risk_cuts`; and what
    the algorithm remembers in the stage (`between_rounds`)."""

    run: str  # a random name of this run
    lock: StudyLock
    stage: Stage
    done: int  # rounds of the stage
    parts: dict[str, dict[JoinedPart, PartCounts]]  # site -> what it joined with when it was surveyed
    survey: dict[str, SurveyReply | NoisedSurveyReply]
    late_survey: dict[str, SurveyReply | NoisedSurveyReply]  # of sites that came in the survival stage
    best: BestDocument | None
    norms: dict[str, dict[str, list[float]]]  # stage -> site -> norms of its updates
    accepted: dict[str, str]
    ledgers: dict[str, LedgerHead] = {}  # site -> farthest head of its ledger seen
    usual_s: dict[str, dict[str, list[float]]]  # site -> kind of exchange -> its last times
    refused: dict[str, str]
    remembered: RememberedDocument = RememberedDocument()
    releases: int = 0  # aggregates that were counted (privacy.mode = "client"); `site_releases` has them
    seconds: dict[str, float]
    records: list[dict[str, Any]]


def write_state(folder: Path, state: RunState, arrays: Mapping[str, Stored]) -> None:
    """Replace the checkpoint.

    Raises:
        RunError: FECG-601 if it cannot be written; the one before then stays.
    """
    write_arrays(folder / STATE, arrays, state.model_dump_json(by_alias=True))


def read_state(folder: Path) -> tuple[RunState, dict[str, Shelved]] | None:
    """The checkpoint, its arrays where they lie; None where there is none.

    Raises:
        RunError: FECG-546 if it is damaged or of another version of fedecg.
    """
    try:
        document, arrays = read_arrays(folder / STATE)
        return RunState.model_validate_json(document), arrays
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(in_words(error)) from None
    except DamagedError as error:
        raise _damaged(str(error)) from None
    except ValidationError as error:
        raise _damaged(type(error).__name__) from None


def _damaged(found: str) -> RunError:
    return RunError(
        "FECG-546",
        "checkpoint of the run",
        found=found,
        expected="state/checkpoint.safetensors as this version of fedecg writes it",
        fix="Restore it from a backup, or begin a new run: fedecg-server start --new.",
    )
