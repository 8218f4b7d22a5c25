"""What travels: one document, one vector, nothing else; and anything else is refused."""

import gc
import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, site_counts
from fedecg.federation.documents import CountsDocument, PartCounts
from fedecg.federation.messages import PIECE_BYTES, let_go, pack, size_bytes, unpack
from fedecg.federation.tasks import Failure, JoinReply, TrainReply, TrainTask

REPLY = TrainReply(site="a", round=3, patients=10, events=2, steps=5, loss=0.1 + 0.2, code_fingerprint="f")
TASK = TrainTask(lock_sha256="l", stage="align", round=1, bank_sha256="b", settings={})


def test_a_document_and_a_vector_come_back_bit_for_bit() -> None:
    vector = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    document, back = unpack(pack(REPLY, vector), TrainReply)
    assert document == REPLY
    assert back is not None
    assert back.tobytes() == vector.tobytes()


def test_a_message_without_weights_has_none() -> None:
    assert unpack(pack(REPLY), TrainReply)[1] is None


def test_join_replies_carry_counts_only() -> None:
    reply = JoinReply(
        site="a", parts={"train": PartCounts(patients=3, events=1)}, code_fingerprint="f", lock_sha256="l"
    )
    assert unpack(pack(reply), JoinReply)[0].parts["train"].events == 1


def test_the_other_sides_failure_arrives_as_its_code() -> None:
    with pytest.raises(FederationError, match="FECG-203") as caught:
        unpack(pack(Failure(site="a", failed="FECG-203")), TrainReply)
    assert caught.value.code == "FECG-203"


def test_a_failure_cannot_carry_text() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Failure(site="a", failed="patient 17 has no lead V3")


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"document": ConfigRecord({"json": 3})}),
        RecordDict({"document": ConfigRecord({"json": "{"})}),
        RecordDict({"document": ConfigRecord({"json": '{"site": "a", "extra": 1}'})}),
    ],
)
def test_anything_but_the_document_is_refused(content: RecordDict) -> None:
    with pytest.raises(FederationError, match="FECG-501"):
        unpack(content, TrainReply)


def test_arrays_other_than_one_float32_vector_are_refused() -> None:
    content = pack(REPLY)
    content["weights"] = ArrayRecord({"flat": Array(np.zeros(3))})
    with pytest.raises(FederationError, match="FECG-501.*one vector of float32"):
        unpack(content, TrainReply)


@pytest.mark.parametrize(("kind", "pieces"), [(np.float32, 4), (np.float16, 2), (np.uint16, 2)])
def test_a_large_vector_travels_in_pieces_of_bounded_size_and_comes_back_bit_for_bit(
    kind: type[np.generic], pieces: int
) -> None:
    vector = (np.arange(3 * PIECE_BYTES // 4 + 5) % 60_000).astype(kind)
    content = pack(REPLY, vector)
    record = content.array_records["weights"]
    assert sorted(record) == [f"flat-{number}" for number in range(pieces)]
    assert max(len(array.data) for array in record.values()) <= PIECE_BYTES + 128  # numpy's header
    back = unpack(content, TrainReply)[1]
    assert back is not None
    assert (back.dtype, back.tobytes()) == (vector.dtype, vector.tobytes())


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES // 4, PIECE_BYTES // 4 + 1, PIECE_BYTES // 2])
def test_vectors_around_the_length_of_a_piece_come_back_and_small_ones_stay_one_array(size: int) -> None:
    vector = np.arange(size, dtype=np.float32)
    content = pack(REPLY, vector)
    assert len(content.array_records["weights"]) == (1 if size <= PIECE_BYTES // 4 else 2)
    back = unpack(content, TrainReply)[1]
    assert back is not None
    assert back.tobytes() == vector.tobytes()


FULL = PIECE_BYTES // 4
WRONG_SPLITS = {
    "one longer than a piece": {"flat": FULL + 1},
    "short piece first": {"flat-0": 5, "flat-1": FULL},
    "too long piece": {"flat-0": FULL, "flat-1": FULL + 1},
    "empty last piece": {"flat-0": FULL, "flat-1": 0},
    "piece missing": {"flat-0": FULL, "flat-2": 3},
    "one more": {"flat": 3, "more": 3},
    "a split of one": {"flat-0": 3},
    "nothing": {},
    "many tiny ones": {f"flat-{number}": 1 for number in range(3000)},
}


@pytest.mark.parametrize("split", WRONG_SPLITS.values(), ids=WRONG_SPLITS.keys())
def test_any_other_split_than_the_layout_prescribes_is_refused(split: dict[str, int]) -> None:
    content = pack(REPLY)
    content["weights"] = ArrayRecord(
        {name: Array(np.zeros(size, np.float32)) for name, size in split.items()}
    )
    with pytest.raises(FederationError, match=r"FECG-501 weights of a message: .*in pieces of 524288 bytes"):
        unpack(content, TrainReply)


def test_pieces_of_different_kinds_are_refused() -> None:
    content = pack(REPLY)
    pieces = {"flat-0": Array(np.zeros(FULL, np.float32)), "flat-1": Array(np.zeros(3, np.float16))}
    content["weights"] = ArrayRecord(pieces)
    with pytest.raises(FederationError, match=r"FECG-501.*pieces of other lengths or kinds"):
        unpack(content, TrainReply)


@pytest.mark.parametrize("data", [b"junk", np.save.__doc__.encode()], ids=["few", "many"])
def test_bytes_that_are_no_array_are_refused_whatever_they_declare(data: bytes) -> None:
    content = pack(REPLY)
    array = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data)
    content["weights"] = ArrayRecord({"flat": array})
    with pytest.raises(FederationError, match="FECG-501"):
        unpack(content, TrainReply)


def test_numbers_beyond_any_study_are_refused() -> None:
    text = REPLY.model_dump_json(by_alias=True).replace('"patients":10', f'"patients":{10**30}')
    with pytest.raises(FederationError, match=r"FECG-501.*patients"):
        unpack(RecordDict({"document": ConfigRecord({"json": text})}), TrainReply)


def test_the_size_of_a_message_is_that_of_its_payload() -> None:
    bare, loaded = size_bytes(pack(TASK)), size_bytes(pack(TASK, np.zeros(1000, np.float32)))
    assert 4000 <= loaded - bare <= 4200


def test_concordance_counts_come_back_exactly() -> None:
    rng = np.random.default_rng(1)
    grid = RiskTimeGrid(time_cuts_days=np.array([100.0, 300.0]), risk_cuts=np.array([-0.5, 0.0, 0.5]))
    counts = site_counts(rng.exponential(200, 50), rng.random(50) < 0.4, rng.normal(size=50), grid)
    back = CountsDocument.of(counts).counts(grid)
    assert np.array_equal(back.cells, counts.cells)
    assert back.pairs == counts.pairs


def test_cells_of_another_grid_are_refused() -> None:
    grid = RiskTimeGrid(time_cuts_days=np.array([100.0]), risk_cuts=np.array([0.0]))
    document = CountsDocument(
        cells=[1, 2],
        concordant=0,
        discordant=0,
        tied_risk=0,
        credit_squares=0.0,
        mixed_squares=0.0,
        comparable_squares=0.0,
    )
    with pytest.raises(FederationError, match="FECG-503.*2 numbers.*8 numbers"):
        document.counts(grid)


def test_the_arrays_of_a_message_that_was_let_go_wait_for_no_collector() -> None:
    """Each is half a megabyte of a model, and a coordinator reads one message after another."""
    gc.disable()
    try:
        content = pack(Failure(site="a", failed="FECG-599"), np.ones(PIECE_BYTES, np.float32))
        arrays = [
            weakref.ref(array) for record in content.array_records.values() for array in record.values()
        ]
        assert len(arrays) == 4
        let_go(content)
        assert [array() for array in arrays] == [None] * 4
    finally:
        gc.enable()
