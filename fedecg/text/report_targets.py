"""What a report points at in the bank: embedded at the site by the bank's own language model, compared, remembered.

In:  reports as `reports` reads them, a bank with its `TextSpace`, the folder of the same language model.
Out: targets (N, K) as codes give them, and a file of embeddings below the site's folder (0600, no text in it).
     Called by `fedecg.training.site_data`. A report that was embedded once needs no language model again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedecg.config import TextSettings
from fedecg.errors import TextError
from fedecg.files import write_whole
from fedecg.text.bank import Bank
from fedecg.text.encoder import POOLINGS, EncoderOptions, TextEncoder, folder_sha256, load_encoder
from fedecg.text.reports import sentences
from fedecg.text.space import ENCODER, TextSpace

__all__ = [
    "bank_encoder",
    "mixed_targets",
    "not_embedded",
    "report_targets",
    "require_same_encoder",
    "soft_targets",
]

CACHE = "text-cache"


def report_targets(
    reports: Sequence[str], bank: Bank, text: TextSettings, folder: Path
) -> NDArray[np.float32]:
    """Softmax of the similarities between a report's sentences and the bank's statements, mean over its sentences.

    A report states several findings, and the embedding of all of them lies near none: on PTB-XL's English reports the
    first choice is among the record's codes for 79 % of whole reports, and for 95 % by sentence (docs/alignment.md).

    Args:
        reports: N texts; "" states nothing.
        bank: K statements, with the space in which they lie.
        text: of site.toml.
        folder: the site's; embeddings are kept in `text-cache` below it.

    Returns:
        (N, K) float32; a row sums to 1, or is all zero where nothing is stated.

    Raises:
        TextError: FECG-264 a bank without a space; FECG-240 another language model than the bank's; FECG-247..253 one
            that cannot be used, as `load_encoder`.
        RunError: FECG-601 the embeddings cannot be written.
    """
    space = _space_of(bank)
    found = np.zeros((len(reports), len(bank.codes)), dtype=np.float32)
    parts = _parts(reports, text)
    row = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if len(row):
        embeddings = _embedded([sentence for part in parts for sentence in part], bank, text, folder)
        np.add.at(found, row, soft_targets(space.place(embeddings), bank.vectors, text.temperature))
        total = found.sum(axis=1, keepdims=True)
        np.divide(found, total, out=found, where=total > 0)
    return found


def not_embedded(reports: Sequence[str], bank: Bank, text: TextSettings, folder: Path) -> int:
    """How many different texts among the reports the language model has still to read: 0 = it is not needed.

    Raises:
        TextError: FECG-264 a bank without a space.
    """
    _space_of(bank)
    file, keys = _places([said for part in _parts(reports, text) for said in part], bank, folder)
    return len(set(keys) - set(_remembered(file, bank.vectors.shape[1])))


def soft_targets(
    vectors: NDArray[np.float32], bank_vectors: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """Softmax over the statements of cosine / temperature.

    Args:
        vectors: (N, D) of length 1, or all zero: nothing is stated.
        bank_vectors: (K, D) of length 1.
        temperature: > 0; small = the nearest statement alone.

    Returns:
        (N, K) float32, rows that sum to 1 or are all zero.
    """
    similarity = vectors.astype(np.float64) @ bank_vectors.astype(np.float64).T / temperature
    weight = np.exp(similarity - similarity.max(axis=1, keepdims=True))
    shares = weight / weight.sum(axis=1, keepdims=True)
    stated: NDArray[np.bool_] = np.any(vectors != 0, axis=1, keepdims=True)
    return np.where(stated, shares, 0).astype(np.float32)


def mixed_targets(
    codes: NDArray[np.float32], reports: NDArray[np.float32], mix: float
) -> NDArray[np.float32]:
    """Targets of codes and of reports in one: where a record has both, `mix` of the report and the rest of the codes.

    A record that has only one of them takes it whole; one that has neither keeps a row of zeros.

    Args:
        codes, reports: (N, K), rows that sum to 1 or are all zero.
        mix: 0..1, weight of the report.
    """
    coded, reported = codes.any(axis=1, keepdims=True), reports.any(axis=1, keepdims=True)
    weight = np.where(coded & reported, mix, np.where(reported, 1.0, 0.0))
    return ((1 - weight) * codes + weight * reports).astype(np.float32)


def bank_encoder(bank: Bank, text: TextSettings) -> TextEncoder:
    """The bank's own language model, from the site's folder; checked before it is loaded.

    Raises:
        TextError: FECG-264, FECG-240, FECG-247..253 as `report_targets`.
    """
    require_same_encoder(bank, text)
    pooling = next(name for name, words in POOLINGS.items() if words == bank.provenance["pooling"])
    options = EncoderOptions(pooling, bank.provenance["max-tokens"], text.batch, text.device)
    return load_encoder(text.encoder, options)


def require_same_encoder(bank: Bank, text: TextSettings) -> None:
    """Compare the site's language model with the bank's, file by file, without loading it.

    Raises:
        TextError: FECG-264, FECG-240, FECG-247 as `report_targets`.
    """
    _space_of(bank)
    weights, described = folder_sha256(text.encoder)
    of_bank = bank.provenance
    other = [
        what
        for what, mine, its in (
            ("weights", weights, of_bank["weights-sha256"]),
            ("a tokenizer or settings", described, of_bank["settings-sha256"]),
        )
        if mine != its
    ]
    if other:
        raise TextError(
            "FECG-240",
            "language model for reports",
            found=f"{' and '.join(other)} with another sha256 than the bank's",
            expected="the language model that the study's bank was built with, file by file",
            fix="Copy that model's folder to [text] encoder of site.toml, or leave [text] out and take part by codes.",
        )


def _parts(reports: Sequence[str], text: TextSettings) -> list[list[str]]:
    """What of each report is embedded: its sentences, or the report as a whole."""
    return [sentences(report) if text.by_sentence else [report] * bool(report) for report in reports]


def _space_of(bank: Bank) -> TextSpace:
    if bank.space is None or any(bank.provenance.get(key) is None for key in ENCODER):
        _refuse_bank("no centre, or no hashes of its language model")
    if bank.provenance["pooling"] not in POOLINGS.values():
        _refuse_bank("a pooling that this version does not know")
    return bank.space


def _refuse_bank(found: str) -> NoReturn:
    raise TextError(
        "FECG-264",
        "code bank for reports",
        found=found,
        expected="a bank that keeps what puts reports beside its statements",
        fix="Ask the coordinator to build it again (fedecg bank build); till then leave out [text]: codes are enough.",
    )


def _embedded(texts: Sequence[str], bank: Bank, text: TextSettings, folder: Path) -> NDArray[np.float32]:
    """(N, D) embeddings, from the site's file or from the language model; the file then holds these and no others."""
    file, keys = _places(texts, bank, folder)
    known = _remembered(file, bank.vectors.shape[1])
    unknown = {key: said for key, said in zip(keys, texts, strict=True) if key not in known}
    if unknown:
        vectors = bank_encoder(bank, text).embed(list(unknown.values()))
        known |= dict(zip(unknown, vectors, strict=True))
    if unknown or len(known) > len(set(keys)):
        _remember(file, {key: known[key] for key in dict.fromkeys(keys)})
    return np.stack([known[key] for key in keys])


def _places(texts: Sequence[str], bank: Bank, folder: Path) -> tuple[Path, list[str]]:
    """The site's file of what this bank's language model has read, and the key of each text in it."""
    own = hashlib.sha256(
        json.dumps([bank.provenance[key] for key in ENCODER], sort_keys=True).encode()
    ).hexdigest()
    keys = [hashlib.sha256(f"{own}\0{said}".encode()).hexdigest() for said in texts]
    return folder / CACHE / f"{own[:16]}.safetensors", keys


def _remembered(file: Path, dim: int) -> dict[str, NDArray[np.float32]]:
    """Key -> embedding; nothing where the file is absent or not whole: it is then made anew."""
    try:
        with safe_open(file, framework="numpy") as content:
            head = json.loads(content.metadata()["fedecg"])
            vectors = content.get_tensor("embeddings")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}
    whole = vectors.dtype == np.float32 and vectors.shape == (len(head["keys"]), dim)
    if not whole or hashlib.sha256(vectors.tobytes()).hexdigest() != head["sha256"]:
        return {}
    return dict(zip(head["keys"], vectors, strict=True))


def _remember(file: Path, known: dict[str, NDArray[np.float32]]) -> None:
    vectors = np.stack(list(known.values()))
    head = {"keys": list(known), "sha256": hashlib.sha256(vectors.tobytes()).hexdigest()}
    write_whole(file, save({"embeddings": vectors}, metadata={"fedecg": json.dumps(head)}), private=True)
