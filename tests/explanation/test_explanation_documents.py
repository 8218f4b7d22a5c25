"""The tests of attention on the wire: what arrives is what was sent, no patient, and refused where it cannot be."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from fedecg.config import ModelSettings
from fedecg.errors import FederationError
from fedecg.explanation import FaithfulnessSums, GroupSums, faithfulness, faithfulness_sums, group_sums
from fedecg.explanation.checks import check_faithfulness_sums, check_group_sums
from fedecg.explanation.documents import (
    ExplainReply,
    ExplainTask,
    joined_models,
    known_groups,
    split_models,
    sums_of_nobody,
)
from fedecg.explanation.entry import explanation_entry, without_arrays
from fedecg.explanation.groups import nobodys_group
from fedecg.federation.messages import pack, unpack
from fedecg.model import Network, build_network

Tamper = Callable[[FaithfulnessSums], FaithfulnessSums]


@pytest.fixture(scope="module")
def sums(network: Network, ecgs: Any) -> FaithfulnessSums:
    return faithfulness_sums(network, ecgs.signal_mv, ecgs.time, ecgs.event, seed=4)


@pytest.fixture(scope="module")
def nobody(network: Network) -> FaithfulnessSums:
    return sums_of_nobody(network, seed=4)


def assert_same(one: FaithfulnessSums, other: FaithfulnessSums) -> None:
    for part in ("randomisation", "deletion", "occlusion", "stability"):
        left, right = getattr(one, part), getattr(other, part)
        assert (left is None) == (right is None)
        for field in () if left is None else fields(left):
            if field.name in ("plain", "hidden"):
                assert getattr(left, field.name) == getattr(right, field.name)
            else:
                np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))
                assert (
                    np.asarray(getattr(left, field.name)).dtype
                    == np.asarray(getattr(right, field.name)).dtype
                )


@pytest.mark.parametrize("seeds", [False, True])
def test_sums_survive_the_wire_bit_for_bit(
    network: Network,
    ecgs: Any,
    nobody: FaithfulnessSums,
    sums: FaithfulnessSums,
    seeds: bool,
) -> None:
    other = build_network(ModelSettings(size="small"), 256, 8, seed=7)
    of = partial(faithfulness_sums, network, seed=4, seeds=[other] if seeds else ())
    sent = of(ecgs.signal_mv[:8], ecgs.time[:8], ecgs.event[:8]) if seeds else sums
    template = of(ecgs.signal_mv[:0], ecgs.time[:0], ecgs.event[:0]) if seeds else nobody
    reply, _ = unpack(pack(ExplainReply.of("city", sent)), ExplainReply)
    assert_same(reply.sums(template), sent)


def test_a_site_of_nobody_sends_zeros(nobody: FaithfulnessSums) -> None:
    reply, _ = unpack(pack(ExplainReply.of("city", nobody)), ExplainReply)
    assert_same(reply.sums(nobody), nobody)
    check_faithfulness_sums(reply.sums(nobody), "city", 0)
    assert not any(value for column in reply.arrays.values() for value in column)


def test_nothing_in_the_message_grows_with_the_number_of_patients(planted_ecgs: Callable[..., Any]) -> None:
    network = build_network(ModelSettings(size="small"), 256, 8, seed=3)
    many = planted_ecgs(50, 256, np.random.default_rng(5))
    replies = [
        ExplainReply.of(
            "city",
            faithfulness_sums(network, many.signal_mv[:n], many.time[:n], many.event[:n], seed=4),
        )
        for n in (10, 50)
    ]
    few, all_of_them = ({name: len(column) for name, column in reply.arrays.items()} for reply in replies)
    assert few == all_of_them
    assert len(replies[0].pairs) == len(replies[1].pairs) == 39
    assert sum(few.values()) < 200
    samples = many.signal_mv.ravel()
    sent = np.concatenate([np.ravel(column) for column in replies[1].arrays.values()])
    assert not np.isin(sent[np.abs(sent) > 1e-3].astype(np.float32), samples).any()


@pytest.mark.parametrize(
    ("array", "change", "found"),
    [
        ("randomisation.distance", lambda column: [-1.0, *column[1:]], "40 numbers, 1 of them impossible"),
        ("deletion.deletion", lambda column: column[:-1], r"\d+ numbers, 0 of them impossible"),
        ("occlusion.ecgs", lambda _: [0.5], "1 numbers, 1 of them impossible"),
    ],
)
def test_an_array_that_cannot_be_is_refused_by_name(
    sums: FaithfulnessSums, nobody: FaithfulnessSums, array: str, change: Any, found: str
) -> None:
    reply = ExplainReply.of("city", sums)
    spoilt = reply.model_copy(update={"arrays": {**reply.arrays, array: change(reply.arrays[array])}})
    with pytest.raises(FederationError, match=rf"FECG-503 {array} of a reply: found {found}; expected"):
        spoilt.sums(nobody)


def test_missing_arrays_and_pairs_are_counted(sums: FaithfulnessSums, nobody: FaithfulnessSums) -> None:
    reply = ExplainReply.of("city", sums)
    arrays = {name: column for name, column in reply.arrays.items() if name != "occlusion.moved"}
    with pytest.raises(
        FederationError, match="FECG-503 sums of a reply: found 1 arrays that are missing or unknown"
    ):
        reply.model_copy(update={"arrays": arrays}).sums(nobody)
    with pytest.raises(FederationError, match="FECG-503 pairs of a reply: found 38 numbers; expected 39"):
        reply.model_copy(update={"pairs": reply.pairs[1:]}).sums(nobody)


def test_numbers_that_are_not_finite_are_no_message(sums: FaithfulnessSums) -> None:
    content = pack(ExplainReply.of("city", sums))
    text = str(content["document"]["json"])  # type: ignore[index, call-overload]
    for wrong in ("Infinity", "NaN", "1e999"):
        content["document"]["json"] = text.replace(
            '"occlusion.agreement":[', f'"occlusion.agreement":[{wrong},'
        )  # type: ignore[index, call-overload]
        with pytest.raises(FederationError, match="FECG-501 ExplainReply message"):
            unpack(content, ExplainReply)


def test_honest_sums_pass(sums: FaithfulnessSums) -> None:
    check_faithfulness_sums(sums, "city", most=40)


def test_more_ecgs_than_the_site_has_are_refused(sums: FaithfulnessSums) -> None:
    with pytest.raises(FederationError, match="FECG-515 ECGs of city: found 40; expected at most 39"):
        check_faithfulness_sums(sums, "city", most=39)


def change(part: str, **values: Any) -> Tamper:
    """Put other numbers into a part; a function is given the number that stands there."""

    def tamper(sums: FaithfulnessSums) -> FaithfulnessSums:
        record = getattr(sums, part)
        new = {name: value(getattr(record, name)) for name, value in values.items()}
        return replace(sums, **{part: replace(record, **new)})

    return tamper


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change("deletion", ecgs=lambda n: n - 1), "counts"),
        (change("occlusion", ecgs=lambda n: n + 1), "counts, occlusion"),
        (change("randomisation", distance=lambda d: d + 41), "randomisation"),
        (change("randomisation", similarity=lambda s: s - 100), "randomisation"),
        (change("deletion", area=lambda a: a + 1), "deletion"),
        (change("deletion", squared=lambda s: s * 0), "deletion"),
        (change("deletion", insertion=lambda c: c * np.array([[2.0], [1.0], [1.0]])), "deletion"),
        (change("occlusion", moved=lambda m: m * 0), "occlusion"),
        (change("occlusion", bars=lambda b: 2 * b), "occlusion"),
        (change("occlusion", agreement=lambda _: 41.0), "occlusion"),
        (change("occlusion", hidden=lambda h: (h[0] + h[0], *h[1:])), "pairs"),
        (change("occlusion", plain=lambda p: p + p, hidden=lambda h: tuple(c + c for c in h)), "pairs"),
        (change("occlusion", events=lambda _: 41), "pairs"),
        (change("occlusion", events=lambda _: 0), "pairs"),
        (change("occlusion", gain_squares=lambda g: g * 1e4 + 1e6), "pairs"),
        (change("occlusion", gain_mixed=lambda g: g + 1e5), "pairs"),
        (change("occlusion", pair_squares=lambda b: b / 4), "pairs"),
        (change("occlusion", pair_squares=lambda b: b * 100), "pairs"),
    ],
)
def test_sums_that_no_ecgs_have_are_refused_part_by_part(
    sums: FaithfulnessSums, tamper: Tamper, named: str
) -> None:
    number = named.count(",") + 1
    with pytest.raises(
        FederationError,
        match=rf"FECG-527 explanation sums of city: found {number} part\(s\) .*: {named}; expected",
    ):
        check_faithfulness_sums(tamper(sums), "city", most=100)


@pytest.fixture(scope="module")
def seeded(network: Network, ecgs: Any) -> FaithfulnessSums:
    other = build_network(ModelSettings(size="small"), 256, 8, seed=7)
    part = slice(12)
    return faithfulness_sums(network, ecgs.signal_mv[part], ecgs.time[part], ecgs.event[part], 4, [other])


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change("stability", ecgs=lambda n: n + 1), "counts"),
        (change("stability", time=lambda _: 12.1), "stability"),
        (change("stability", leads=lambda _: -12.1), "stability"),
    ],
)
def test_a_stability_that_no_ecgs_have_is_refused(
    seeded: FaithfulnessSums, tamper: Tamper, named: str
) -> None:
    check_faithfulness_sums(seeded, "city", most=12)
    with pytest.raises(
        FederationError, match=rf"FECG-527 explanation sums of city: found 1 part\(s\) .*: {named};"
    ):
        check_faithfulness_sums(tamper(seeded), "city", most=12)


def test_sums_over_fewer_than_ten_patients_are_refused(network: Network, ecgs: Any) -> None:
    few = faithfulness_sums(network, ecgs.signal_mv[:9], ecgs.time[:9], ecgs.event[:9], seed=4)
    with pytest.raises(
        FederationError,
        match=r"FECG-358 explanation sums of city: found sums over 9 patients; expected nobody's, or those of at le",
    ):
        check_faithfulness_sums(few, "city", most=100)


@pytest.fixture(scope="module")
def groups(network: Network, ecgs: Any) -> dict[str, GroupSums]:
    members = {"high risk": np.arange(40) < 20, "LVH": np.arange(40) % 3 == 0}
    return group_sums(network, ecgs.signal_mv, 100.0, members)


def test_groups_survive_the_wire_to_five_decimals(
    sums: FaithfulnessSums, groups: dict[str, GroupSums]
) -> None:
    reply, _ = unpack(pack(ExplainReply.of("city", sums, groups)), ExplainReply)
    nobody = nobodys_group(256, 100.0)
    read = {name: document.sums(nobody) for name, document in reply.groups.items()}
    check_group_sums(read, known_groups(["LVH"]), "city", most=40)
    for name, sent in groups.items():
        assert read[name].attention.ecgs == sent.attention.ecgs
        np.testing.assert_allclose(read[name].attention.leads, sent.attention.leads, atol=1e-5)
        np.testing.assert_allclose(read[name].beats.signal_mv, sent.beats.signal_mv, atol=1e-5)
        np.testing.assert_allclose(read[name].beats.time, sent.beats.time, atol=1e-5)
    assert len(reply.model_dump_json()) < 100_000
    short = reply.groups["LVH"].model_copy(update={"beat_time": reply.groups["LVH"].beat_time[1:]})
    with pytest.raises(
        FederationError, match="FECG-503 beat-time of a group: found 1439 numbers; expected 1440"
    ):
        short.sums(nobody)


def spoilt(groups: dict[str, GroupSums], part: str, **values: Any) -> dict[str, GroupSums]:
    record = getattr(groups["LVH"], part)
    new = replace(record, **{name: value(getattr(record, name)) for name, value in values.items()})
    return groups | {"LVH": replace(groups["LVH"], **{part: new})}


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("attention", {"ecgs": lambda n: n + 1}),
        ("attention", {"leads": lambda a: a[:, ::-1] * 1.01}),
        ("attention", {"time": lambda a: a - a[:, :1] - 1}),
        ("beats", {"ecgs": lambda n: n + 30}),
        ("beats", {"time": lambda a: a * 1000}),
        ("beats", {"time": lambda a: -a}),
        ("beats", {"signal_mv": lambda a: a + 1e6}),
    ],
)
def test_a_group_that_no_patients_make_is_refused(
    groups: dict[str, GroupSums], part: str, values: Any
) -> None:
    with pytest.raises(
        FederationError, match=r"FECG-527 groups of city: found 1 of 2 that are unknown or contradict"
    ):
        check_group_sums(spoilt(groups, part, **values), known_groups(["LVH"]), "city", most=40)


def test_unknown_groups_too_many_and_too_few_patients_are_refused(groups: dict[str, GroupSums]) -> None:
    with pytest.raises(FederationError, match=r"FECG-527 groups of city: found 1 of 2"):
        check_group_sums(groups, known_groups(["SR"]), "city", most=40)
    with pytest.raises(
        FederationError, match=r"FECG-515 ECGs of a group of city: found 20; expected at most 19"
    ):
        check_group_sums(groups, known_groups(["LVH"]), "city", most=19)
    for part in ("attention", "beats"):
        with pytest.raises(
            FederationError, match=r"FECG-358 a group's sums of city: found sums over 9 patients"
        ):
            check_group_sums(spoilt(groups, part, ecgs=lambda _: 9), known_groups(["LVH"]), "city", most=40)


def test_models_travel_behind_each_other_and_come_apart_again() -> None:
    one, two = np.arange(5, dtype=np.float32), np.ones(5, dtype=np.float32)
    vector = joined_models([one, two])
    assert vector.dtype == np.float32
    for sent, read in zip((one, two), split_models(vector, 2), strict=True):
        np.testing.assert_array_equal(sent, read)
    with pytest.raises(
        FederationError, match=r"FECG-360 weights of an explain task: found 2 models of 2 different lengths"
    ):
        joined_models([one, two[1:]])
    for wrong, models in ((vector[1:], 2), (vector[:0], 1), (None, 1)):
        with pytest.raises(
            FederationError, match=rf"FECG-360 .* expected {models} model\(s\), one behind the other"
        ):
            split_models(wrong, models)


def test_a_task_names_at_most_ten_models() -> None:
    task = {
        "lock_sha256": "",
        "stage": "survival",
        "round": 1,
        "bank_sha256": "",
        "settings": {},
        "part": "test",
    }
    assert ExplainTask.model_validate(task | {"models": 10}).models == 10
    for models in (0, 11):
        with pytest.raises(ValueError, match="models"):
            ExplainTask.model_validate(task | {"models": models})
    for repeat in (-1, 10):
        with pytest.raises(ValueError, match="repeat"):
            ExplainTask.model_validate(task | {"repeat": repeat})


def test_the_document_has_every_verdict_and_no_nan(sums: FaithfulnessSums, nobody: FaithfulnessSums) -> None:
    entry = explanation_entry("test", {"city": sums, "coast": nobody}, mixes_leads=True)
    assert entry["sites"] == {"city": 40, "coast": 0}
    assert entry["ecgs"] == 40
    result = faithfulness(sums)
    assert [verdict["passed"] for verdict in entry["verdicts"]] == [one.passed for one in result.verdicts]
    assert entry["captions"]["time attention"].endswith("says when, not in which lead.")
    empty = explanation_entry("test", {"coast": nobody}, mixes_leads=False)
    assert empty["time"]["p-value"] is None
    assert empty["occlusion"]["c-loss"] == [None] * 12


def test_the_summary_keeps_figures_and_verdicts_and_no_arrays(sums: FaithfulnessSums) -> None:
    entry = explanation_entry("test", {"city": sums}, mixes_leads=False)
    short = without_arrays(entry)
    assert short["verdicts"] == entry["verdicts"]
    assert short["deletion"]["deletion-random"] == entry["deletion"]["deletion-random"]
    assert not {"deletion", "insertion", "shares"} & set(short["deletion"])
    assert not {"moved", "bars", "c-loss"} & set(short["occlusion"])


def test_groups_of_all_sites_are_written_by_frequency_and_the_summary_keeps_their_counts(
    sums: FaithfulnessSums, groups: dict[str, GroupSums]
) -> None:
    sites = {"city": groups, "coast": {"LVH": groups["LVH"]}, "rural": {}}
    entry = explanation_entry("test", {"city": sums}, False, sites)
    assert list(entry["groups"]) == ["high risk", "LVH"]
    lvh = entry["groups"]["LVH"]
    assert (lvh["ecgs"], lvh["sites"]) == (28, 2)
    np.testing.assert_allclose(lvh["leads"], groups["LVH"].attention.mean().leads[0], atol=1e-5)
    np.testing.assert_allclose(lvh["beat"]["signal-mv"], groups["LVH"].beats.mean()[0], atol=1e-5)
    assert without_arrays(entry)["groups"]["LVH"] == {
        "ecgs": 28,
        "sites": 2,
        "beats": lvh["beats"],
        "beat": {"rate-hz": 100.0},
    }
