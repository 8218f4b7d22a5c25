"""The authors' published weights as a model folder of ours: read as data, checked name by name, nothing executed.

In:  a checkpoint (Lightning, a plain state dict, or safetensors). Out: a model folder of the `paper` preset.
Called by `fedecg import-checkpoint`; `fedecg.load(folder).encoder` is what it is made for.

The checkpoint is unpickled by torch's weights-only reader, which builds tensors and plain containers. One class is let
in beside them: `argparse.Namespace`, a bag of attributes without code of its own, in which the authors' Lightning
checkpoints keep their command line.

Weights do not say everything: a network that was built with `apply_subsequent_attention`, which the published one was
not, has the same names and shapes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.files import in_words, read_regular
from fedecg.model.authors_layout import ENCODER_CHILDREN, FIRST, Part, Shapes, converted, misfit
from fedecg.model.checkpoint import ImportedFile, save_model
from fedecg.model.lead_maps import STEP_SAMPLES, PaperMaps
from fedecg.model.network import Network, build_network

__all__ = ["Import", "import_checkpoint"]

STEP_SIZED = "attention.norm2.weight"  # its length is that of a lead's whole map
MEDIAN_SAMPLES, MEDIAN_RATE_HZ = 608, 500  # 1.2 s at 500 Hz, padded
RHYTHM_RATE_HZ = 100
WRAPPERS = ("state_dict", "model_state_dict", "model")  # where a checkpoint keeps its tensors
NO_BANK = 1  # length of a bank vector where there is no bank: the untrained projection is as small as can be
NAMED = 5  # tensors that an error names
# What torch's weights-only reader says of whatever would have to run.
CODE = re.compile(r"GLOBAL (\w[\w.]{0,60})|TorchScript archive|call reduce|Can only (?:create|build)")


@dataclass(frozen=True)
class Import:
    """What was taken from a checkpoint.

    Attributes:
        samples, rate_hz: of the network's input.
        tensors: of the checkpoint that were taken.
        parts: of our network that have them.
        left: group of other tensors in the checkpoint (`ecg_projector`) -> how many.
        source_sha256: of the checkpoint.
    """

    samples: int
    rate_hz: int
    tensors: int
    parts: tuple[Part, ...]
    left: dict[str, int]
    source_sha256: str


def import_checkpoint(
    path: str | Path, out: str | Path, signals: Mapping[str, float | str] | None = None
) -> Import:
    """Write a model folder with the encoder of a checkpoint of the authors, and its decoder where that fits.

    Args:
        path: .ckpt, .pt, .pth as torch writes them, or .safetensors.
        out: folder, new or empty.
        signals: of `SignalSettings`, where they shall differ from its defaults. The length follows from the weights;
            the rate is 500 Hz for T = 608 and 100 Hz for all others unless given; the input is the median beat for
            T = 608 at 500 Hz and the recording's middle for all others unless given.

    Raises:
        ModelError: FECG-311, no readable tensors; FECG-312, reading would run code; FECG-313, not one encoder of the
            authors; FECG-314, tensors that are missing, unknown or of another shape; FECG-304, weights that are not
            finite; FECG-315, signal settings that do not fit; FECG-317, the folder is not empty.
        RunError: FECG-601, the folder cannot be written.
    """
    content = _content(Path(path))
    state = _tensors(content, Path(path).suffix == ".safetensors")
    prefix = _prefix(state)
    encoder, decoder = _encoder(state, prefix), _decoder(state, prefix)
    settings = _signals(encoder, dict(signals or {}))
    _check_folder(Path(out))
    network = build_network(ModelSettings(preset="paper"), settings.samples, NO_BANK, seed=0)
    _fill_encoder(network, encoder)
    parts: list[Part] = ["encoder", "decoder"] if _fill_decoder(network, decoder) else ["encoder"]
    source = hashlib.sha256(content).hexdigest()
    save_model(out, network, settings, "", imported=ImportedFile(parts=parts, source_sha256=source))
    taken = {f"{prefix}{name}" for name in encoder}
    if "decoder" in parts:
        taken |= {f"{_beside(prefix)}decoder.{name}" for name in decoder}
    left = Counter(_group(name, prefix) for name in state if name not in taken)
    return Import(settings.samples, settings.rate_hz, len(taken), tuple(parts), dict(left), source)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise _unreadable(in_words(error)) from None


def _tensors(content: bytes, as_safetensors: bool) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, wherever it keeps them."""
    try:
        tree = _read_safetensors(content) if as_safetensors else _read_torch(content)
    except ModelError:
        raise
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise _unreadable(f"content that cannot be read ({type(error).__name__})") from None
    for wrapper in WRAPPERS:
        if isinstance(tree, Mapping) and isinstance(tree.get(wrapper), Mapping):
            tree = tree[wrapper]
    named = tree.items() if isinstance(tree, Mapping) else ()
    tensors = {name: tensor for name, tensor in named if isinstance(name, str) and _is_dense(tensor)}
    if not tensors:
        raise _unreadable("no tensors with names")
    return tensors


def _read_safetensors(content: bytes) -> Any:
    return safetensors.torch.load(content)


def _read_torch(content: bytes) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        code = CODE.search(str(error))
        if code is None:
            raise
        raise ModelError(
            "FECG-312",
            "checkpoint",
            found=f"{code[1]}, which is no tensor and no plain container" if code[1] else "a program",
            expected="tensors, numbers, text, lists and dictionaries",
            fix="Nothing was run. Whoever trusts the file writes its state dict alone, elsewhere: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt').",
        ) from None


def _is_dense(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_complex()
    )


def _unreadable(found: str) -> ModelError:
    return ModelError(
        "FECG-311",
        "checkpoint",
        found=found,
        expected="a file of torch.save or a .safetensors file with named tensors",
        fix="Download it again; a Lightning checkpoint (.ckpt) and a plain state dict will do.",
    )


def _prefix(state: Mapping[str, Tensor]) -> str:
    """What stands before the names of the encoder's tensors: `network.encoder.` in the authors' checkpoints."""
    found = [name.removesuffix(FIRST) for name in state if name == FIRST or name.endswith(f".{FIRST}")]
    if len(found) == 1:
        return found[0]
    raise ModelError(
        "FECG-313",
        "checkpoint",
        found=f"{len(found)} encoders in {len(state)} tensors ({_some(found or state)})",
        expected=f"one encoder of the authors: one tensor ...{FIRST}",
        fix="Weights of another network cannot be imported; of several, save the state dict of one.",
    )


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}


def _encoder(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of the encoder, but for those of layers behind it (`linear`)."""
    within = _within(state, prefix)
    return {name: tensor for name, tensor in within.items() if name.split(".")[0] in ENCODER_CHILDREN}


def _decoder(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of the decoder beside that encoder, if any."""
    return _within(state, f"{_beside(prefix)}decoder.") if prefix else {}


def _beside(prefix: str) -> str:
    return prefix.removesuffix("encoder.")


def _signals(encoder: Mapping[str, Tensor], wanted: dict[str, float | str]) -> SignalSettings:
    """Signal settings of the length that the weights have, at the wanted rate."""
    samples = _samples(encoder)
    given = int(wanted.get("samples", samples))
    rate_hz = wanted.get("rate_hz", MEDIAN_RATE_HZ if samples == MEDIAN_SAMPLES else RHYTHM_RATE_HZ)
    kind = "median" if (samples, rate_hz) == (MEDIAN_SAMPLES, MEDIAN_RATE_HZ) else "rhythm"
    try:
        settings = SignalSettings.model_validate(
            {"input": kind, "rate_hz": rate_hz, **wanted, "samples": samples}
        )
    except ValidationError as error:
        raise _misfitting_signals("; ".join(_sentence(problem) for problem in error.errors())) from None
    if given != samples:
        raise _misfitting_signals(f"samples {given}, and weights for {samples}")
    return settings


def _samples(encoder: Mapping[str, Tensor]) -> int:
    """T, from the length of a lead's whole map; where that cannot be, a length for which all that is wrong is told."""
    sized = encoder.get(STEP_SIZED)
    width = PaperMaps.CHANNELS[-1]
    if sized is None or sized.dim() != 1 or not len(sized) or len(sized) % width:
        return MEDIAN_SAMPLES
    return len(sized) // width * STEP_SAMPLES


def _sentence(problem: Any) -> str:
    place = ".".join(str(word) for word in problem["loc"])
    return f"{place} {problem['msg']}".strip().replace("Value error, ", "")


def _misfitting_signals(found: str) -> ModelError:
    return ModelError(
        "FECG-315",
        "signal settings of the import",
        found=found,
        expected="a rate, a band and the length that the weights have",
        fix="Leave --samples away: the length is read off the weights. Rate and band are those of the recordings.",
    )


def _fill_encoder(network: Network, encoder: Mapping[str, Tensor]) -> None:
    shapes = _shapes(network.encoder)
    wrong = misfit("encoder", encoder, shapes)
    if wrong:
        kinds = {"missing": wrong.missing, "unknown": wrong.unknown, "of another shape": wrong.misshaped}
        raise ModelError(
            "FECG-314",
            "encoder of the checkpoint",
            found=", ".join(
                f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names
            ),
            expected=f"the tensors of the authors' encoder for {network.samples} samples "
            "(base_feature_dim 4, z_dims 512, downsample_factor 5, 12 leads)",
            fix="Networks of other options (no_lead_attention, add_time, other widths) cannot be imported.",
        )
    _check_finite(encoder)
    network.encoder.load_state_dict(converted("encoder", encoder, shapes))


def _fill_decoder(network: Network, decoder: Mapping[str, Tensor]) -> bool:
    """False where there is no decoder, or one of another layout (one linear layer, say): it stays untrained."""
    shapes = _shapes(network.decoder)
    if misfit("decoder", decoder, shapes):
        return False
    _check_finite(decoder)
    network.decoder.load_state_dict(converted("decoder", decoder, shapes))
    return True


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise ModelError(
            "FECG-304",
            "weights of the checkpoint",
            found=f"{len(wrong)} of {len(tensors)} tensors that are not finite ({_some(wrong)})",
            expected="finite numbers",
            fix="The training that wrote them diverged; take an earlier checkpoint.",
        )


def _check_folder(folder: Path) -> None:
    is_folder = folder.is_dir()
    if folder.exists() and not (is_folder and not any(folder.iterdir())):
        raise ModelError(
            "FECG-317",
            "folder of the import",
            found="a folder that is not empty" if is_folder else "a file of that name",
            expected="a new or empty folder",
            fix="Choose another --out; a model that is there is not written over.",
        )


def _group(name: str, prefix: str) -> str:
    """What a tensor belongs to: a child of the encoder, a neighbour of the encoder, or the first word of its name."""
    start = next(one for one in (prefix, _beside(prefix), "") if name.startswith(one))
    return _printable(start + name.removeprefix(start).split(".")[0])


def _some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    listed = list(names)
    more = f", and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(_printable(name) or "(no prefix)" for name in listed[:NAMED]) + more


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80])
