"""The paper's figures beside a study of its recipe, labelled as published on other data."""

from pathlib import Path

import pytest

from fedecg.config import load_study
from fedecg.report.published import PUBLISHED, published_note

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(("name", "figure"), [("paper-hyp", "0.6349"), ("paper-mi", "0.5805")])
def test_the_recipes_show_what_the_paper_published(name: str, figure: str) -> None:
    note = published_note(load_study(CONFIGS / f"{name}.toml").name)
    assert note is not None
    assert note.startswith(f"Published, other data: C-index {figure} on UKB-")
    assert "doi 10.1109/TBDATA.2025.3536922" in note
    assert published_note(f"{name}-fold-1") == note
    assert figure in (CONFIGS / f"{name}.toml").read_text()


def test_other_studies_show_nothing() -> None:
    assert published_note("paper-hypothesis") is None
    assert published_note("demo") is None
    assert set(PUBLISHED) == {"paper-hyp", "paper-mi"}


@pytest.mark.parametrize(("name", "batch"), [("paper-hyp", 1024), ("paper-mi", 128)])
def test_the_recipes_say_what_the_paper_did(name: str, batch: int) -> None:
    study = load_study(CONFIGS / f"{name}.toml")
    assert (study.signals.input, study.signals.rate_hz, study.signals.samples) == ("median", 500, 608)
    assert (study.model.preset, study.align.loss, study.survival.loss) == ("paper", "paper", "cox-batch")
    assert (study.survival.reconstruction, study.survival.batch_size) == (0.5, batch)
    assert (study.survival.learning_rate, study.survival.weight_decay) == (1e-4, 1e-2)
    assert study.survival.rounds == 100
