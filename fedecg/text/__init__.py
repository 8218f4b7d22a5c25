"""Text: codes and what they state, as vectors.

statements, prompts     what a code states, in full words
encoder, whitening, space    a language model; its embeddings evened out, and how other texts are put beside them
bank, build             the code bank, and how one is built
frequencies             class weights from public counts
reports, report_targets what a site's reports point at in the bank
separation, commands    what a bank tells apart; `fedecg bank`
"""

from fedecg.text.bank import Bank, load_bank, make_bank, targets, write_bank
from fedecg.text.frequencies import class_weights, frequencies_sha256
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
    "class_weights",
    "dominant_superclass",
    "frequencies_sha256",
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
