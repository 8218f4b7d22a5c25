"""The heads of the sites' ledgers as this coordinator saw them last, kept from one run to the next.

In:  the coordinator's folder; heads that came with replies. Out: `ledger-heads.json` in it, replaced whole with every
new one. Called by the study where runs can be resumed; in a simulation sites and ledgers are made anew.

A site whose ledger is an older copy, or gone, is told so in the first task of whatever run comes next, and refuses
(FECG-435). Whoever removes this file, or restores it together with the sites' ledgers, takes that away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from fedecg.config import Section
from fedecg.errors import RunError
from fedecg.federation.documents import LedgerHead
from fedecg.files import write_whole

__all__ = ["FILE", "Heads", "farther", "keep_heads", "read_heads"]

FILE = "ledger-heads.json"

Heads = Mapping[str, LedgerHead]  # by site


class _Document(Section):
    heads: dict[str, LedgerHead]


def read_heads(folder: Path) -> dict[str, LedgerHead]:
    """What was kept; nothing where nothing was.

    Raises:
        RunError: FECG-547 the file is damaged: without it a site that lost its ledger would go unnoticed.
    """
    try:
        return _Document.model_validate_json((folder / FILE).read_text(encoding="utf-8")).heads
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError) as error:
        raise RunError(
            "FECG-547",
            FILE,
            found=f"a file that cannot be used ({type(error).__name__})",
            expected="the heads of the sites' ledgers, as fedecg-server writes them",
            fix="Restore it from a backup; or remove it: older copies of ledgers then go unnoticed until they grow.",
        ) from None


def keep_heads(folder: Path, heads: Heads) -> None:
    """Replace the file.

    Raises:
        RunError: FECG-601 it cannot be written.
    """
    document = _Document(heads=dict(sorted(heads.items())))
    write_whole(folder / FILE, document.model_dump_json(by_alias=True, indent=2) + "\n")


def farther(one: Heads, other: Heads) -> dict[str, LedgerHead]:
    """Of every site the head with more entries; of as many the first."""
    heads = dict(one)
    for site, head in other.items():
        if site not in heads or head.sequence > heads[site].sequence:
            heads[site] = head
    return heads
