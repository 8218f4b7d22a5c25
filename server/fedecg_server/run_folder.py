"""The folder of a run: what was decided, what happened, what came out. Every file appears whole or not at all.

In:  settings, round records, results. Out: `study.toml`, `rounds.json`, `assessment.json`, `explanation.json`,
`baselines.json`, `summary.json`, `result.json`, `failed.json`; beside them the journal's files and, where a run can be
resumed, `state/`. `result.json` is removed when a run starts and written last: where it stands, the run is finished.
`failed.json` says with which code a run ended that cannot go on. Where neither stands, the run is unfinished.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w

from fedecg.config import StudySettings
from fedecg.errors import FedecgError, RunError
from fedecg.federation.rounds import RoundRecord
from fedecg.files import in_words, write_whole
from fedecg.report.summary import coordinator_summary
from fedecg_server.concluded import forget
from fedecg_server.journal import EVENTS, STATUS

__all__ = ["RunFolder", "read_json", "write_json"]

ROUNDS, RESULT, FAILED, SUMMARY = "rounds.json", "result.json", "failed.json", "summary.json"
ASSESSMENT, EXPLANATION, BASELINES = "assessment.json", "explanation.json", "baselines.json"
STUDY, MODEL = "study.toml", "model"
MODEL_FILES = tuple(f"{MODEL}/{name}" for name in ("model.json", "model_card.md", "tripod.md"))


class RunFolder:
    """One run's files.

    Args:
        path: created if absent.
        resumable: whether a checkpoint is kept after every round (a simulation is simply run again).
    """

    def __init__(self, path: Path, resumable: bool = False) -> None:
        self.path, self.resumable = path, resumable
        self.model = path / MODEL
        self._rounds: list[RoundRecord] = []

    @property
    def rounds(self) -> list[RoundRecord]:
        """The book so far."""
        return list(self._rounds)

    def begin(self, settings: StudySettings) -> None:
        """Make room for a new run: an earlier result must not be taken for this one's.

        Raises:
            RunError: FECG-601 if the folder cannot be written.
        """
        for earlier in (
            RESULT,
            SUMMARY,
            FAILED,
            EXPLANATION,
            ASSESSMENT,
            BASELINES,
            ROUNDS,
            STATUS,
            EVENTS,
            *MODEL_FILES,
        ):
            (self.path / earlier).unlink(missing_ok=True)
        forget(self.path)
        write_whole(self.path / STUDY, tomli_w.dumps(settings.model_dump(by_alias=True, exclude_none=True)))
        self._rounds = []

    def resume(self, records: list[RoundRecord]) -> None:
        """Go on with a run whose book ends with these rounds."""
        (self.path / FAILED).unlink(missing_ok=True)
        self._rounds = list(records)
        self._write_rounds()

    def keep(self, record: RoundRecord) -> None:
        """Append a round to rounds.json."""
        self._rounds.append(record)
        self._write_rounds()

    def keep_assessment(self, entry: dict[str, Any]) -> None:
        """Write every figure of the final evaluation."""
        write_json(self.path / ASSESSMENT, entry)

    def keep_explanation(self, entry: dict[str, Any]) -> None:
        """Write whether the model's attention is true."""
        write_json(self.path / EXPLANATION, entry)

    def keep_baselines(self, entry: dict[str, Any]) -> None:
        """Write what the sites reach alone."""
        write_json(self.path / BASELINES, entry)

    def finish(self, result: dict[str, Any], settings: StudySettings) -> None:
        """Write the result; from now on the run counts as finished.

        A simulation writes a summary of its own, with the columns that only it can have.
        """
        if self.resumable:
            files = (self.path / name for name in (ASSESSMENT, EXPLANATION, BASELINES))
            kept = [read_json(file) if file.exists() else None for file in files]
            write_json(self.path / SUMMARY, coordinator_summary(result, settings, *kept))
        write_json(self.path / RESULT, result)

    def fail(self, error: FedecgError) -> None:
        """Say why the run ended; it does not go on by itself."""
        write_json(self.path / FAILED, {"code": error.code, "message": str(error)})

    def _write_rounds(self) -> None:
        write_json(self.path / ROUNDS, [entry.entry() for entry in self._rounds])


def write_json(path: Path, tree: object) -> None:
    """Write JSON that appears whole or not at all."""
    write_whole(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a file of a finished run.

    Raises:
        RunError: FECG-602 if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            "FECG-602",
            path.name,
            found=in_words(error),
            expected="a file of a finished run",
            fix="Run it again.",
        ) from None
