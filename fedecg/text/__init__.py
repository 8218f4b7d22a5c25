"""Text: codes and what they state, as vectors.

statements, prompts     what a code states, in full words
encoder, whitening      a language model; its embeddings evened out
bank, build             the code bank, and how one is built
separation, commands    what a bank tells apart; `fedecg bank`
"""

from fedecg.text.bank import Bank, load_bank, make_bank, targets, write_bank
from fedecg.text.prompts import prompt, prompts, prompts_sha256
from fedecg.text.statements import (
    SUPERCLASSES,
    UNCLASSIFIED,
    Statement,
    dominant_superclass,
    scp_statements,
    snomed_statements,
)
from fedecg.text.whitening import whiten

__all__ = [
    "SUPERCLASSES",
    "UNCLASSIFIED",
    "Bank",
    "Statement",
    "dominant_superclass",
    "load_bank",
    "make_bank",
    "prompt",
    "prompts",
    "prompts_sha256",
    "scp_statements",
    "snomed_statements",
    "targets",
    "whiten",
    "write_bank",
]
