"""The verdicts that ship with a model, so that whoever looks at its attention knows what the tests found.

In:  explanation.json of a study, which the coordinator writes. Out: `explanation.json` of the model's folder: captions
and verdicts without figures; back as `ModelVerdicts`. Called by the coordinator, and by `fedecg explain`.

The file is listed in the folder's SHA256SUMS and names the weights that were tested. A model without it was not tested.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fedecg.config import Section
from fedecg.errors import ModelError
from fedecg.files import write_whole
from fedecg.model.package import EXPLANATION, WEIGHTS, check_file, listed_sums, read_file, write_sums

__all__ = ["ModelVerdicts", "VerdictEntry", "read_verdicts", "write_verdicts"]


class VerdictEntry(Section):
    """`fedecg.explanation.Verdict`, field by field."""

    test: str
    about: str
    passed: bool | None
    sentence: str
    tested: bool


class ModelVerdicts(Section):
    """What the tests found of one model's attention.

    Attributes:
        weights_sha256: of the model that was tested.
        part: of the cohorts on which it was tested.
        ecgs, sites: how many.
        captions: by map, "time attention" and "lead attention": what must stand under it.
        verdicts: test by test.
    """

    format: Literal[1] = 1
    weights_sha256: str
    part: str
    ecgs: int
    sites: int
    captions: dict[str, str]
    verdicts: list[VerdictEntry]


def write_verdicts(folder: Path, explanation: Mapping[str, Any]) -> None:
    """Put the verdicts beside the model that was tested.

    Args:
        folder: of the model, whose weights the sums name.
        explanation: as `explanation_entry` gives it.

    Raises:
        ModelError: FECG-306, FECG-308 the folder's sums. RunError: FECG-601.
    """
    document = ModelVerdicts(
        weights_sha256=hashlib.sha256(read_file(folder / WEIGHTS)).hexdigest(),
        part=explanation["part"],
        ecgs=explanation["ecgs"],
        sites=sum(1 for ecgs in explanation["sites"].values() if ecgs),
        captions=explanation["captions"],
        verdicts=[VerdictEntry.model_validate(verdict) for verdict in explanation["verdicts"]],
    )
    text = json.dumps(document.model_dump(by_alias=True), indent=2) + "\n"
    write_whole(folder / EXPLANATION, text)
    write_sums(folder, [EXPLANATION])


def read_verdicts(folder: Path, weights_sha256: str) -> ModelVerdicts | None:
    """The verdicts of a model; None where it was not tested.

    Args:
        folder: of the model.
        weights_sha256: of the weights in use.

    Raises:
        ModelError: FECG-306 listed but not there; FECG-308 not as listed; FECG-361 another file, or of other weights.
    """
    sums = listed_sums(folder)
    if not (folder / EXPLANATION).exists() and EXPLANATION not in (sums or {}):
        return None
    text = read_file(folder / EXPLANATION)
    if sums is not None:
        check_file(EXPLANATION, text, sums)
    try:
        verdicts = ModelVerdicts.model_validate_json(text)
    except ValidationError as error:
        raise _not_these(f"{error.error_count()} problem(s)") from None
    if verdicts.weights_sha256 != weights_sha256:
        raise _not_these("tests of other weights")
    return verdicts


def _not_these(found: str) -> ModelError:
    return ModelError(
        "FECG-361",
        f"model folder, {EXPLANATION}",
        found=found,
        expected="the tests of this model's attention, as a study writes them",
        fix="Copy the whole model folder again.",
    )
