"""Build a code bank: embed one prompt a code with a local language model, offline.

In:  a folder with a `transformers` model, and a list of statements (of the package, or a site's own table).
Out: a `Bank`, as `<file>.safetensors` and `<file>.json`. Run once by a study's coordinator (`fedecg bank build`);
     sites need no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedecg.text.bank import Bank, make_bank, refuse_other_names, write_bank
from fedecg.text.encoder import POOLINGS, EncoderOptions, load_encoder
from fedecg.text.prompts import prompts, prompts_sha256
from fedecg.text.statements import statement_table
from fedecg.text.whitening import WHITENINGS, whitened

__all__ = ["BuildOptions", "build_bank"]


@dataclass(frozen=True)
class BuildOptions:
    """What is embedded, and how; the defaults are those of the shipped bank.

    Attributes:
        codes: "scp-ecg", "snomed-ct", or the path of a table (csv) with the columns code, description[, category].
        whitening: "none", "half" or "full"; see `whiten`.
        encoder: pooling, longest text, batch and device.
        model_name: the model's public name, for the provenance; the folder's name if empty.
    """

    codes: str | Path = "scp-ecg"
    whitening: str = "half"
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    model_name: str = ""


def build_bank(
    model_dir: str | Path,
    name: str,
    out: str | Path,
    options: BuildOptions | None = None,
    advance: Callable[[int], None] | None = None,
) -> Bank:
    """Embed the prompts of a list of statements and write the bank.

    The same model on the same machine gives the same bits; elsewhere, on a GPU, or with other batches, they agree to
    about 1e-6.

    Args:
        model_dir: folder with config.json, a tokenizer and *.safetensors.
        name: name of the bank.
        out: file to write, `.safetensors`; the provenance goes beside it.
        advance: told after every batch how many prompts are done.

    Raises:
        TextError: FECG-247..249, FECG-253 as `load_encoder`; FECG-250, FECG-251 as `statement_table`; FECG-252
            embeddings that are not finite or all the same; FECG-241..243 as `make_bank` and `write_bank`.
    """
    options = options or BuildOptions()
    refuse_other_names(out)  # before an hour of embedding, not after it
    statements, source = statement_table(options.codes)
    prompt_of = prompts(statements.values())
    encoder = load_encoder(model_dir, options.encoder)
    texts = list(prompt_of.values())
    vectors, space = whitened(encoder.embed(texts, advance), options.whitening)
    provenance = {
        "name": name,
        "model": options.model_name or Path(model_dir).resolve().name,
        "weights-sha256": dict(encoder.weights_sha256),
        "settings-sha256": dict(encoder.settings_sha256),
        "pooling": POOLINGS[options.encoder.pooling],
        "max-tokens": encoder.max_tokens,
        "prompts-cut": encoder.cut(texts),
        "transform": WHITENINGS[options.whitening],
        "statements": source,
        "prompts-sha256": prompts_sha256(prompt_of),
        "prompts": prompt_of,
        "shape": list(vectors.shape),
    }
    bank = make_bank(name, list(prompt_of), vectors, provenance, space)
    write_bank(bank, out)
    return bank
