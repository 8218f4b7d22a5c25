"""Language models: pooling and padding against texts one by one, offline, and folders that cannot be used."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from fedecg.errors import TextError
from fedecg.text import prompts, scp_statements
from fedecg.text.encoder import POOLINGS, EncoderOptions, folder_sha256, load_encoder, pool

transformers = pytest.importorskip("transformers")
from tiny_models import bert, llama  # noqa: E402

TEXTS = list(prompts(scp_statements().values()).values())[:9]  # 6 to 17 words
# (kind, padding side of its tokenizer, its pad token)
MODELS = ["bert", "llama-left", "llama-right", "llama-left-no-pad", "llama-right-no-pad"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {"bert": bert(root / "bert", TEXTS)}
    for name in MODELS[1:]:
        side, pad = name.split("-")[1], None if "no-pad" in name else "</s>"
        made[name] = llama(root / name, TEXTS, side, pad)
    return made


def one_by_one(folder: Path, pooling: str) -> np.ndarray:
    """Each text alone, so without padding: pooling is then a mean, or a choice of the first or last row."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            hidden = model(input_ids=ids).last_hidden_state[0]
            rows.append({"mean": hidden.mean(dim=0), "cls": hidden[0], "last-token": hidden[-1]}[pooling])
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_different_lengths_gives_what_each_text_gives_alone(
    folders: dict[str, Path], name: str, pooling: str
) -> None:
    expected = one_by_one(folders[name], pooling)
    for batch in (1, 4, 50):
        encoder = load_encoder(folders[name], EncoderOptions(pooling, batch=batch, device="cpu"))
        assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)
    if pooling != "cls":  # the texts differ, so a mixed-up row would show
        assert np.abs(expected[:, None] - expected[None]).max(axis=2)[~np.eye(9, dtype=bool)].min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_by_hand_leaves_padding_out_on_either_side(side: str) -> None:
    tokens = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]] if side == "right" else [[0, 0, 1, 1], [1, 1, 1, 1]])
    first, last = (0, 1) if side == "right" else (2, 3)
    assert_array_equal(pool(tokens, mask, "cls"), torch.stack([tokens[0, first], tokens[1, 0]]))
    assert_array_equal(pool(tokens, mask, "last-token"), torch.stack([tokens[0, last], tokens[1, 3]]))
    mean = torch.stack([tokens[0, first : last + 1].mean(dim=0), tokens[1].mean(dim=0)])
    assert_allclose(pool(tokens, mask, "mean"), mean)


def test_the_encoder_of_a_model_that_also_writes_is_used(tmp_path: Path) -> None:
    folder = bert(tmp_path / "t5", TEXTS)
    config = transformers.T5Config(
        vocab_size=100, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    transformers.T5Model(config).save_pretrained(folder)
    vectors = load_encoder(folder, EncoderOptions(device="cpu")).embed(TEXTS)
    assert vectors.shape == (9, 8)
    assert_allclose(
        load_encoder(folder, EncoderOptions(batch=1, device="cpu")).embed(TEXTS), vectors, atol=1e-5
    )


def test_longer_texts_are_cut_and_counted(folders: dict[str, Path]) -> None:
    encoder = load_encoder(folders["llama-left"], EncoderOptions("last-token", max_tokens=4, device="cpu"))
    whole, start = (
        "atrial and node dysfunction conduction",
        "atrial and node",
    )  # <s> in front: 4 tokens are left
    assert_allclose(encoder.embed([whole]), encoder.embed([start]), atol=1e-6)
    assert encoder.cut([whole, start, "atrial"]) == 1
    assert load_encoder(folders["bert"]).max_tokens == 128  # its positions; the tokenizer says 10^30
    assert load_encoder(folders["bert"], EncoderOptions(max_tokens=500)).max_tokens == 128


def test_nothing_is_asked_of_the_network(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_encoder(folders["llama-right"], EncoderOptions(device="cpu")).embed(TEXTS[:2]).shape == (2, 8)


def test_code_of_the_models_own_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.Config", "AutoModel": "modeling_own.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    with pytest.raises(TextError, match="FECG-247 model folder: found one that transformers cannot load"):
        load_encoder(folder)


def test_pickled_weights_are_refused_unread(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(folders["bert"] / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(
        TextError,
        match=r"FECG-247 .* no \*\.safetensors file in it, but pickled weights; .*fedecg bank build",
    ):
        load_encoder(tmp_path)


def test_folders_that_hold_no_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"FECG-247 model folder: found no such folder; .* a tokenizer"):
        load_encoder(tmp_path / "absent")
    with pytest.raises(TextError, match=r"FECG-247 model folder: found no \*\.safetensors file in it; "):
        load_encoder(tmp_path)
    shutil.copy(folders["bert"] / "model.safetensors", tmp_path)
    with pytest.raises(TextError, match=r"FECG-247 .* found one that transformers cannot load \(\w+Error\)"):
        load_encoder(tmp_path)


def test_an_adapter_to_a_model_elsewhere_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """With the package peft transformers would read the model that it names, whose hash nobody compares."""
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/other"}')
    for read in (load_encoder, folder_sha256):
        with pytest.raises(
            TextError, match="FECG-247 model folder: found an adapter to a model .* elsewhere"
        ):
            read(folder)


def test_a_tokenizer_in_any_usual_file_belongs_to_the_hashes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    (folder / "spm.model").write_bytes(b"of DeBERTa")
    assert set(folder_sha256(folder)[1]) - set(folder_sha256(folders["bert"])[1]) == {"spm.model"}


def test_weights_that_would_be_drawn_at_random_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(name for name in tensors if "layer.0.attention" in name)[:2]
    rest = {name: values for name, values in tensors.items() if name not in names}
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TextError, match="FECG-247 model folder: found weights that lack 2 of the tensors"):
        load_encoder(folder)


def test_a_model_that_does_not_read_text_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32
    )
    transformers.ViTModel(config).save_pretrained(folder)
    with pytest.raises(TextError, match="FECG-247 model folder: found a model that does not read text alone"):
        load_encoder(folder)


def test_embeddings_that_are_not_finite_are_counted(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["bert"], folder)
    tensors = load_file(folder / "model.safetensors")
    word = transformers.AutoTokenizer.from_pretrained(folder)("fibrillation")["input_ids"][1]
    tensors["embeddings.word_embeddings.weight"][word] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    texts = ["atrial fibrillation", "atrial flutter", "fibrillation"]
    with pytest.raises(
        TextError, match="FECG-252 .*: found 2 of 3 that are not finite; expected finite numbers"
    ):
        load_encoder(folder, EncoderOptions(batch=1)).embed(texts)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (EncoderOptions(pooling="max"), "a pooling that there is none of"),
        (EncoderOptions(device="tpu"), "a device that there is none of"),
        (EncoderOptions(batch=0), "a batch or a number of tokens that is too small"),
        (EncoderOptions("max", max_tokens=2), "a pooling that there is none of and a batch or a number"),
    ],
)
def test_options_that_there_are_none_of_are_refused(
    tmp_path: Path, options: EncoderOptions, found: str
) -> None:
    with pytest.raises(
        TextError, match=f"FECG-249 .*: found {found}.* one of mean, cls, last-token; device.*Check --pooling"
    ):
        load_encoder(tmp_path, options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_goes_on(folders: dict[str, Path]) -> None:
    with pytest.raises(TextError, match="FECG-253 --device cuda: found no GPU that PyTorch can use"):
        load_encoder(folders["bert"], EncoderOptions(device="cuda"))
    assert load_encoder(folders["bert"]).device == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_processor_gives(folders: dict[str, Path]) -> None:
    on_cpu = load_encoder(folders["llama-left"], EncoderOptions("last-token", device="cpu")).embed(TEXTS)
    on_gpu = load_encoder(folders["llama-left"], EncoderOptions("last-token", device="cuda")).embed(TEXTS)
    assert_allclose(on_gpu, on_cpu, atol=1e-4)


def test_without_transformers_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        TextError, match=r'FECG-248 package transformers: found not installed; .*"fedecg\[text\]"'
    ):
        load_encoder(folders["bert"])
