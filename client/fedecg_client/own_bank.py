"""The code bank of a study as this site has it: its own copy, and whether it is the one that was agreed on.

In:  a site's folder, a study's settings, and a task or a lock with the hashes that the coordinator names.
Out: settings whose bank is the site's own file; a refusal of any other. Called by `opened` before every task and by
     preflight before the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fedecg.config import StudySettings, load_site
from fedecg.errors import FederationError
from fedecg.text import Bank, frequencies_sha256

__all__ = ["BANKS", "Agreed", "require_agreed_bank", "with_own_bank"]

BANKS = "banks"


class Agreed(Protocol):
    """What a task and a lock alike say of the bank."""

    @property
    def bank_sha256(self) -> str: ...
    @property
    def space_sha256(self) -> str: ...
    @property
    def frequencies_sha256(self) -> str: ...


def with_own_bank(folder: Path, settings: StudySettings) -> StudySettings:
    """Settings whose bank, if it is a file, lies in banks/ of the site's folder, wherever the coordinator has it.

    A deployed site opens no other file because of a message; a virtual one shares the simulation's.
    """
    bank = settings.align.bank
    if not bank.endswith(".safetensors") or load_site(folder / "site.toml").server is None:
        return settings
    own = str(folder / BANKS / Path(bank).name)
    return settings.model_copy(update={"align": settings.align.model_copy(update={"bank": own})})


def require_agreed_bank(folder: Path, agreed: Agreed, settings: StudySettings, bank: Bank) -> None:
    """What the site's targets are made of must be what the study agreed on.

    Raises:
        FederationError: FECG-514 another bank, another space for a site with reports, or other public frequencies.
    """
    has_reports = load_site(folder / "site.toml").text is not None
    weighs = settings.align.class_weights == "public"
    other = {
        "code bank": agreed.bank_sha256 != bank.sha256,
        "code bank's space for reports": has_reports and agreed.space_sha256 != bank.space_sha256,
        "frequencies of codes": weighs and agreed.frequencies_sha256 != frequencies_sha256(),
    }
    for what, differs in other.items():
        if differs:
            raise FederationError(
                "FECG-514",
                what,
                found="another sha256 than the study's",
                expected="that which the coordinator uses",
                fix=f"Install the study's fedecg; copy its bank, both files, into {BANKS}/ of the site's folder.",
            )
