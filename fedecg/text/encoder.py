"""A local language model as an encoder of texts: one vector a text, offline, in batches, on a GPU when there is one.

In:  a folder with a `transformers` model (safetensors weights only; no code of the model's is ever run), and texts.
Out: (N, D) float32. Called by `fedecg.text.build`, and at a site by `report_targets`.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.errors import TextError

__all__ = ["POOLINGS", "EncoderOptions", "TextEncoder", "folder_sha256", "load_encoder", "pool"]

# Pooling -> what a bank's provenance says of it.
POOLINGS = {
    "mean": "mean over the tokens of the last hidden state, special tokens included",
    "cls": "first token of the last hidden state",
    "last-token": "last token of the last hidden state, padding left out",
}
DEVICES = ("auto", "cpu", "cuda")
ADAPTER = "adapter_config.json"
MOST_TOKENS = 512  # no prompt or report of an ECG is longer; some models say that they take 10^30
SETTINGS = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "spm.model", "sentencepiece.model", "bpe.codes", "vocab.bpe", "tekken.json",
)  # fmt: skip


@dataclass(frozen=True)
class EncoderOptions:
    """How texts become vectors.

    Attributes:
        pooling: a key of `POOLINGS`.
        max_tokens: longer texts are cut; None: what the model takes, at most 512.
        batch: texts at once; changes results by about 1e-6.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
    """

    pooling: str = "mean"
    max_tokens: int | None = None
    batch: int = 16
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A loaded model; make it with `load_encoder`, which checks it.

    Attributes:
        options: as given. max_tokens: what texts are cut to. device: where it runs.
        weights_sha256, settings_sha256: of its files of weights; of its settings and tokenizer, by name.
    """

    tokenizer: Any
    model: Any
    options: EncoderOptions
    max_tokens: int
    device: str
    weights_sha256: Mapping[str, str]
    settings_sha256: Mapping[str, str]

    def embed(
        self, texts: Sequence[str], advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """One vector a text: (N, D), as the model gives them, not normalised.

        Args:
            advance: told after every batch how many texts are done.

        Raises:
            TextError: FECG-252 vectors that are not finite.
        """
        found: list[Tensor] = []
        with torch.inference_mode():
            for batch in _batches(texts, self.options.batch):
                tokens = self._padded(batch)
                hidden = self.model(**tokens).last_hidden_state
                found.append(pool(hidden, tokens["attention_mask"], self.options.pooling).cpu())
                if advance is not None:
                    advance(sum(map(len, found)))
        vectors: NDArray[np.float32] = torch.cat(found).numpy()
        bad = int(np.sum(~np.isfinite(vectors).all(axis=1)))
        if bad:
            raise TextError(
                "FECG-252",
                "embeddings of the language model",
                found=f"{bad} of {len(vectors)} that are not finite",
                expected="finite numbers",
                fix="Its weights are damaged, or not made for float32: get them again, or take another model.",
            )
        return vectors

    def cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than `max_tokens`, so that their end is not read."""
        whole = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return sum(len(ids) > self.max_tokens for ids in whole)

    def _padded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens of a batch, padded on the right whatever the tokenizer prefers, and though it has no pad token.

        On the right, positions count from a text's first token in every kind of model, as they do when it is alone;
        what stands there is masked, and a decoder does not look ahead.
        """
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        longest = max(len(ids) for ids in rows["input_ids"])
        fill = {"input_ids": self._pad_id(), "attention_mask": 0, "token_type_ids": 0}
        taken = inspect.signature(self.model.forward).parameters
        return {
            name: torch.tensor([row + [value] * (longest - len(row)) for row in rows[name]]).to(self.device)
            for name, value in fill.items()
            if name in rows and name in taken
        }

    def _pad_id(self) -> int:
        known = (self.tokenizer.pad_token_id, getattr(self.model.config, "pad_token_id", None))
        return next((int(number) for number in known if number is not None), 0)


def load_encoder(model_dir: str | Path, options: EncoderOptions | None = None) -> TextEncoder:
    """Load a local model, encoder or decoder-only, in float32.

    Raises:
        TextError: FECG-247 no model folder with safetensors weights, or one that cannot be loaded; FECG-248
            transformers is not installed; FECG-249 options that there are none of; FECG-253 no GPU.
    """
    options = options or EncoderOptions()
    _check(options)
    folder = Path(model_dir)
    weights, described = folder_sha256(folder)
    tokenizer, model = _load(folder)
    device = _device(options.device)
    asked = (options.max_tokens, tokenizer.model_max_length, _positions(model))
    return TextEncoder(
        tokenizer=tokenizer,
        model=model.to(device).eval(),
        options=options,
        max_tokens=min(int(number) for number in (*asked, MOST_TOKENS) if number),
        device=device,
        weights_sha256=weights,
        settings_sha256=described,
    )


def folder_sha256(model_dir: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Which model a folder holds: file name -> sha256, of its weights, and of its settings and tokenizer.

    Raises:
        TextError: FECG-247 no model folder with safetensors weights, or an adapter (PEFT) to a model elsewhere.
    """
    folder = Path(model_dir)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        _refuse_model(_what_is_there(folder))
    if (folder / ADAPTER).exists():  # it names a model elsewhere, which would be read in place of this one
        _refuse_model("an adapter to a model that lies elsewhere (merge it into that model first)")
    described = [folder / name for name in SETTINGS if (folder / name).is_file()]
    return {file.name: _file_sha256(file) for file in weights}, {
        file.name: _file_sha256(file) for file in described
    }


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector a text of its tokens' vectors; padding, on either side, is left out.

    Args:
        hidden: (N, T, D). mask: (N, T), 1 = token, 0 = padding; at least one token a text. pooling: see `POOLINGS`.

    Returns:
        (N, D).
    """
    if pooling == "mean":
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    # argmax takes the first of equals: of the mask itself that is the first token.
    chosen = mask.argmax(dim=1) if pooling == "cls" else (mask * place).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


def _check(options: EncoderOptions) -> None:
    problems = []
    if options.pooling not in POOLINGS:
        problems.append("a pooling that there is none of")
    if options.device not in DEVICES:
        problems.append("a device that there is none of")
    if options.batch < 1 or (options.max_tokens is not None and options.max_tokens < 3):
        problems.append("a batch or a number of tokens that is too small")
    if problems:
        raise TextError(
            "FECG-249",
            "options of the language model",
            found=" and ".join(problems),
            expected=f"pooling one of {', '.join(POOLINGS)}; device one of {', '.join(DEVICES)}; "
            "batch >= 1; max tokens >= 3",
            fix="Check --pooling, --device, --batch and --max-tokens; at a site, [text] of site.toml.",
        )


def _load(folder: Path) -> tuple[Any, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as its_logging
    except ImportError:
        raise TextError(
            "FECG-248",
            "package transformers",
            found="not installed",
            expected="transformers, which only building a bank needs",
            fix='pip install "fedecg[text]"',
        ) from None
    quiet: Any = its_logging  # what matters of its messages is checked below
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        model, read = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **offline
        )
    except Exception as error:  # transformers raises many kinds, some of the model file's own making
        _refuse_model(f"one that transformers cannot load ({type(error).__name__})")
    # transformers draws what a file lacks at random; only the pooler's weights are not used here.
    missing = [name for name in read["missing_keys"] if "pooler" not in name]
    if missing:
        _refuse_model(f"weights that lack {len(missing)} of the tensors that config.json asks for")
    tokenizer.truncation_side = "right"  # what is cut is always a text's end
    return tokenizer, _that_reads(model)


def _that_reads(model: Any) -> Any:
    """The half of a model that reads: itself, or its encoder where a decoder is to write."""
    reader = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
    if "input_ids" not in inspect.signature(reader.forward).parameters:
        _refuse_model("a model that does not read text alone")
    return reader


def _device(asked: str) -> str:
    there = torch.cuda.is_available()
    if asked == "auto":
        return "cuda" if there else "cpu"
    if asked == "cuda" and not there:
        raise TextError(
            "FECG-253",
            "--device cuda",
            found="no GPU that PyTorch can use",
            expected="a GPU and a PyTorch built for it",
            fix="Take --device auto or cpu.",
        )
    return asked


def _positions(model: Any) -> int | None:
    number = getattr(model.config, "max_position_embeddings", None)
    return number if isinstance(number, int) and number > 0 else None


def _what_is_there(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    pickled = [file for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(kind)]
    return f"no *.safetensors file in it{', but pickled weights' if pickled else ''}"


def _refuse_model(found: str) -> NoReturn:
    raise TextError(
        "FECG-247",
        "model folder",
        found=found,
        expected="a folder with config.json, a tokenizer and safetensors weights",
        fix="Pickled weights (pytorch_model.bin) are never read here: fedecg bank build --help.",
    ) from None


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
