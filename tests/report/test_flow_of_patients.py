"""The flow of a cohort drawn, and the version for outside: what is shown never gives a small count away."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.cohort.flow import Flow, PartCount, Step, flow_document
from fedecg.errors import RunError
from fedecg.report.flow_figure import draw_flow, write_flow_figure
from fedecg.report.flow_outside import outside_document

LEAST_PATIENTS, LEAST_EVENTS = 10, 5


def flow(
    left: tuple[int, ...] = (0, 32, 5, 11),
    outcomes: tuple[int, int, int] = (9, 6, 37),
    parts: tuple[tuple[int, int], ...] = ((36, 6), (5, 1), (11, 2)),
    fold: int = 0,
) -> Flow:
    cohort = sum(outcomes)
    remaining, steps = cohort + sum(left), []
    for number, one in enumerate(left):
        remaining -= one
        steps.append(Step(f"s{number}", f"reason {number}", one, remaining))
    names = ("train", "validation", "test")
    return Flow(
        "cohort", cohort + sum(left), 200, tuple(steps), cohort, *outcomes, "heart failure", 365.5,
        tuple(PartCount(fold, name, *part) for name, part in zip(names, parts, strict=True)),
        ("3 ECGs are not in the signal store",), ({"code": "FECG-287", "count": 1},), ("rule",),
    )  # fmt: skip


def texts(document: dict[str, object]) -> list[str]:
    return [text.get_text().strip() for axes in draw_flow(document).axes for text in axes.texts]


def test_the_picture_says_every_number() -> None:
    said = texts(flow_document(flow()))
    for words in (
        "Patients with an ECG: 100 (200 ECGs)", "32 left: reason 1", "5 left: reason 2", "68 remain", "63 remain",
        "Cohort: 52 patients\nmedian follow-up 366 days", "heart failure: 9",
        "Parts: train 36 (events: 6), validation 5 (events: 1), test 11 (events: 2).",
    ):  # fmt: skip
        assert words in said
    assert "52 remain" not in said  # that is the cohort's box


def test_no_box_lies_on_another_and_all_lie_on_the_page() -> None:
    document = flow_document(flow(left=(0, 3, 0, 40, 7, 1)))
    document["steps"][3]["text"] = "a long reason of many words that needs three lines or so, " * 3
    figure = draw_flow(document)
    boxes = [patch.get_extents() for patch in figure.axes[0].patches]
    page = figure.bbox
    for number, one in enumerate(boxes):
        assert page.x0 <= one.x0
        assert one.x1 <= page.x1
        assert page.y0 <= one.y0
        assert one.y1 <= page.y1
        assert not any(one.overlaps(other) for other in boxes[:number])


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_flow_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_flow_figure(flow_document(flow()), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_figure_that_cannot_be_written_has_a_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="FECG-601"):
        write_flow_figure(flow_document(flow()), tmp_path / "file" / "flow.svg")


def test_small_steps_are_counted_together_and_the_outcomes_withheld_in_pairs() -> None:
    document = outside_document(flow())
    assert [(one["text"], one["left"], one["remaining"]) for one in document["steps"]] == [
        ("reason 0; reason 1", 32, 68),
        ("reason 2; reason 3", 16, 52),
    ]
    assert (document["patients"], document["cohort"]) == (100, 52)
    assert (document["events"], document["died"], document["censored"]) == ("withheld", "fewer than 10", 37)
    assert [one["patients"] for one in document["parts"]] == [36, "fewer than 10", "withheld"]
    assert all(isinstance(one["events"], str) for one in document["parts"])
    assert not {"notes", "faults"} & set(document)
    said = "\n".join(texts(document))
    assert "16 left for any of:\n– reason 2\n– reason 3" in said
    assert "small counts merged or withheld" in said


def test_of_a_large_cohort_nothing_is_withheld() -> None:
    document = outside_document(flow((10, 20), (50, 30, 400), ((300, 30), (80, 10), (100, 10))))
    assert [one["left"] for one in document["steps"]] == [10, 20]
    assert (document["events"], document["died"], document["censored"]) == (50, 30, 400)
    assert document["median_follow_up_days"] == 12 * 30.4375  # of 365.5, which may be one patient's own
    assert [one["events"] for one in document["parts"]] == [30, 10, 10]


@pytest.mark.parametrize(("cohort", "shown"), [(19, "withheld"), (20, 365.25)])
def test_the_median_follow_up_needs_as_many_patients_on_either_side(cohort: int, shown: object) -> None:
    document = outside_document(flow(outcomes=(0, 0, cohort)))
    assert (document["cohort"], document["median_follow_up_days"]) == (cohort, shown)
    assert f"median follow-up {'365 days' if cohort == 20 else shown}" in " ".join(texts(document))


def test_where_few_left_the_start_is_not_said() -> None:
    document = outside_document(flow((1, 0, 2), (50, 30, 400)))
    assert document["patients"] == "withheld"
    assert [(one["left"], one["remaining"]) for one in document["steps"]] == [("fewer than 10", 480)]


def test_of_folds_only_their_number_is_said_inside_and_nothing_outside() -> None:
    assert outside_document(flow(fold=2))["parts"] == []
    assert "Test parts: 2 folds." in texts(flow_document(flow(fold=2)))


counts = st.integers(0, 60)


@settings(deadline=None, max_examples=300)
@given(st.lists(counts, min_size=1, max_size=6), st.tuples(counts, counts, st.integers(1, 60)))
def test_no_small_number_can_be_had_by_subtraction(left: list[int], outcomes: tuple[int, int, int]) -> None:
    cohort = sum(outcomes)
    document = outside_document(flow(tuple(left), outcomes, ((cohort, outcomes[0]), (0, 0), (0, 0))))
    trunk = [document["patients"], *(one["remaining"] for one in document["steps"])]
    known = [number for number in trunk if isinstance(number, int)]
    gaps = [high - low for high, low in itertools.pairwise(known)]
    assert all(gap == 0 or gap >= LEAST_PATIENTS for gap in gaps)
    assert all(isinstance(one["left"], str) or one["left"] >= LEAST_PATIENTS for one in document["steps"])
    assert all(number >= LEAST_PATIENTS for number in known)
    ends = [document[name] for name in ("events", "died", "censored")]
    shown = [number for number in ends if isinstance(number, int)]
    if isinstance(document["cohort"], int):
        assert document["cohort"] >= LEAST_PATIENTS
        hidden = document["cohort"] - sum(shown)
        assert len(shown) == 3 or hidden >= LEAST_PATIENTS
        assert len(shown) in (0, 1, 3)
    else:
        assert not shown
    assert not isinstance(ends[0], int) or ends[0] >= LEAST_EVENTS
    assert all(not isinstance(one, int) or one >= LEAST_PATIENTS for one in ends[1:])
