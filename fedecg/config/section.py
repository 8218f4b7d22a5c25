"""What every settings section is: strict, frozen, kebab-case in files; and the kinds of value that many have.

In:  nothing. Out: `Section`, the base of every model here and of every document that travels; names and bounds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ADDRESS",
    "FORMS",
    "SHA256",
    "SITE_NAME",
    "STUDY_NAME",
    "Count",
    "Fraction",
    "NonNegative",
    "Positive",
    "Section",
    "Stage",
]

Stage = Literal["align", "survival"]
STUDY_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ADDRESS = r"^[^\s:/]+:[0-9]{1,5}$"
SHA256 = r"^[0-9a-f]{64}$"
FORMS = {  # pattern -> what people are told instead
    STUDY_NAME: "expected at most 64 small letters, digits and dashes, the first no dash",
    SITE_NAME: "expected at most 64 letters, digits, dots, dashes and underscores, the first a letter or a digit",
    ADDRESS: 'expected HOST:PORT, such as "ecg.example.org:9092", without https://',
    SHA256: "expected a SHA-256: 64 digits from 0 to 9 and a to f",
}
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A settings section: strict types, no unknown keys, kebab-case in files."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        allow_inf_nan=False,
    )
