"""Sites whose embeddings know some findings: what a representation would be like that learned them."""

from __future__ import annotations

import numpy as np

from fedecg.representation.records import SiteEmbeddings
from fedecg.text import load_bank

BANK = load_bank("minilm-demo")
FINDINGS = ("NORM", "IMI", "CLBBB", "LVH")
WIDTH = 12


def planted_site(
    name: str, patients: int, seed: int, strength: float = 1.5, width: int = WIDTH, shift: float = 0.0
) -> SiteEmbeddings:
    """One ECG a patient; finding k moves direction k, and the projection points to the statement."""
    rng = np.random.default_rng(seed)
    finding = rng.integers(len(FINDINGS), size=patients)
    embedding = rng.standard_normal((patients, width)) + shift
    embedding[np.arange(patients), finding] += strength
    statements = BANK.vectors[[BANK.codes.index(code) for code in FINDINGS]].astype(np.float64)
    projected = statements[finding] + 0.05 * rng.standard_normal((patients, statements.shape[1]))
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    rhythm = rng.choice(["SR", "AFIB"], size=patients, p=[0.9, 0.1])
    return SiteEmbeddings(
        name,
        np.arange(patients),
        rng.choice(["train", "validation", "test"], size=patients, p=[0.5, 0.2, 0.3]),
        tuple({FINDINGS[at]: 100.0, str(beat): 0.0} for at, beat in zip(finding, rhythm, strict=True)),
        embedding,
        projected,
    )


def weights_of(sites: list[SiteEmbeddings], replicates: int = 30) -> list[np.ndarray]:
    """As the document draws them."""
    from fedecg.evaluation.label_auc import patient_weights

    return [
        patient_weights(site.patient, replicates, np.random.default_rng([0, *site.name.encode()]))
        for site in sites
    ]
