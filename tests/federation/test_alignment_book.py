"""The book of rounds tells who only reconstructed and whose embeddings have collapsed."""

from fedecg.federation.rounds import RoundRecord, alignment_notes, alignment_summary, has_collapsed
from fedecg.objectives import COLLAPSE_REMEDY
from fedecg.report.findings import notes


def figures(stated: int = 30, rank: float | None = None, target: float | None = None) -> dict[str, object]:
    return {"stated": stated, "records": 30 if rank is not None else 0, "rank": rank, "target-rank": target}


def record(number: int, **sites: dict[str, object]) -> RoundRecord:
    return RoundRecord("align", number, sorted(sites), sorted(sites), alignment=sites)


def test_below_half_of_the_targets_rank_is_a_collapse_and_unseen_is_none() -> None:
    assert has_collapsed(figures(rank=4.9, target=10.0))
    assert not has_collapsed(figures(rank=5.0, target=10.0))
    assert not has_collapsed(figures())
    assert not has_collapsed({})


def test_a_collapse_is_told_with_its_remedy_once_for_each_site() -> None:
    first = record(
        5, north=figures(rank=2.0, target=9.0), south=figures(rank=8.0, target=9.0), west=figures()
    )
    (line,) = alignment_notes(first)
    assert line == (
        "align round 5: embeddings collapse at north (they fill less than half of the directions of what they are "
        f"pulled to): {COLLAPSE_REMEDY}"
    )
    assert 'else align.loss = "bank", a lower align.temperature' in line
    assert alignment_notes(record(6, north=figures(), south=figures())) == []
    again = record(10, north=figures(rank=3.0, target=9.0), south=figures(rank=4.0, target=9.0))
    (line,) = alignment_notes(again, [first])
    assert line.startswith("align round 10: embeddings collapse at south (")


def test_sites_that_state_nothing_are_named_in_the_first_round_alone() -> None:
    silent = {"north": figures(stated=0), "south": figures(stated=0), "west": figures()}
    (line,) = alignment_notes(record(1, **silent))
    assert line.startswith(
        "align round 1: north, south state(s) nothing of what its ECGs show (no codes, no reports)"
    )
    assert alignment_notes(record(2, **silent)) == []
    assert record(2, **silent).silent == ["north", "south"]


def test_the_summary_keeps_the_last_ranks_that_were_looked_at() -> None:
    book = [
        record(4, north=figures(stated=20), south=figures(stated=0)),
        record(5, north=figures(30, 2.0, 9.0), south=figures(stated=0)),
        record(6, north=figures(stated=31), south=figures(stated=0)),
    ]
    assert alignment_summary(book) == {
        "north": {"stated": 31, "records": 30, "rank": 2.0, "target-rank": 9.0, "collapsed": True},
        "south": {"stated": 0, "records": 0, "rank": None, "target-rank": None, "collapsed": False},
    }
    assert alignment_summary([RoundRecord("survival", 1, ["north"])]) is None
    lines = notes({"alignment": alignment_summary(book), "outcomes": "observed"})
    assert "Alignment: south had neither codes nor reports and reconstructed only." in lines
    assert any(
        line.startswith("Alignment COLLAPSED at north: embeddings fill less than half") for line in lines
    )


def test_a_record_with_figures_comes_back_from_the_book_and_an_older_one_without_them_too() -> None:
    told = record(5, north=figures(rank=2.0, target=9.0))
    assert RoundRecord.of(told.entry()) == told
    older = {key: value for key, value in told.entry().items() if key != "alignment"}
    assert RoundRecord.of(older).alignment == {}
