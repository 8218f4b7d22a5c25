"""Text: codes and what they state, as vectors. `statements.py`, `prompts.py`, `bank.py`; `build.py` makes a bank."""

from fedecg.text.bank import Bank, half_whiten, load_bank, make_bank, targets, write_bank
from fedecg.text.prompts import prompt, prompts, prompts_sha256
from fedecg.text.statements import (
    SUPERCLASSES,
    UNCLASSIFIED,
    Statement,
    dominant_superclass,
    scp_statements,
)

__all__ = [
    "SUPERCLASSES",
    "UNCLASSIFIED",
    "Bank",
    "Statement",
    "dominant_superclass",
    "half_whiten",
    "load_bank",
    "make_bank",
    "prompt",
    "prompts",
    "prompts_sha256",
    "scp_statements",
    "targets",
    "write_bank",
]
