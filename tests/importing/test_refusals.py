"""Refused facts and refused keys: what a bad fact costs the others, and what ends an import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omi_async import (
    APIError,
    AuthenticationError,
    ConnectError,
    Fact,
    FactOutcome,
    ImportStoppedError,
    InvalidFactError,
    InvalidRequestError,
    ServerError,
    Session,
)
from omi_async.local import FOREVER, Fault, LocalServer
from omi_async.local.faults import Sleep, Work
from omi_async.local.messages import Reply
from tests.clock import elapsed, run
from tests.importing.helpers import assert_complete, calls, counts, facts, serving, sizes

MARK = "poison"


def with_poison(count: int, places: set[int]) -> list[Fact]:
    return [Fact(f"{MARK if n in places else 'fact'} {n}", category="system") for n in range(count)]


async def test_a_named_bad_fact_costs_one_call_and_itself(server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.poison(MARK))
    outcomes: list[FactOutcome] = []
    report = await session.memories.import_facts(with_poison(25, {7}), on_outcome=outcomes.append)
    assert counts(report) == {"created": 24, "rejected": 1}
    assert_complete(report, outcomes)
    assert sizes(server) == [25, 24]
    assert report.requests == 2
    (rejected,) = report.failures
    assert rejected.index == 7
    assert isinstance(rejected.error, InvalidRequestError)
    assert str(rejected.error) == "refused by the server: content: Value error, this memory cannot be stored"
    assert "fact" not in str(rejected.error.detail)


async def test_several_named_at_once_cost_one_call(server: LocalServer, session: Session) -> None:
    detail = [
        {"loc": ["body", "memories", place, "tags"], "type": "odd", "msg": f"bad tag {place}"}
        for place in (0, 3, 24)
    ]
    detail.append({"loc": ["body", "memories", 3, "content"], "type": "odd", "msg": "bad text"})
    server.faults.add(Fault.answer(422, detail), on="batch")
    report = await session.memories.import_facts(facts(25))
    assert counts(report) == {"created": 22, "rejected": 3}
    assert sizes(server) == [25, 22]
    assert [str(o.error) for o in report.failures] == [
        "refused by the server: tags: bad tag 0",
        "refused by the server: tags: bad tag 3; content: bad text",
        "refused by the server: tags: bad tag 24",
    ]


async def test_all_of_a_batch_may_be_named(server: LocalServer, session: Session) -> None:
    detail = [{"loc": ["body", "memories", n, "tags"], "type": "odd", "msg": "no"} for n in range(25)]
    server.faults.add(Fault.answer(422, detail), on="batch")
    report = await session.memories.import_facts(facts(30))
    assert counts(report) == {"created": 5, "rejected": 25}
    assert calls(server, "batch") == 2


async def test_a_server_that_names_one_after_the_other_is_isolated_in_the_end(
    server: LocalServer, session: Session
) -> None:
    server.faults.add(Fault.poison(MARK))
    report = await session.memories.import_facts(with_poison(25, set(range(3, 13))))
    assert counts(report) == {"created": 15, "rejected": 10}
    server.assert_each_stored_once([f for f in with_poison(25, set(range(3, 13))) if MARK not in f.content])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))), st.data())
@example((25, 24), None)
@example((25, 0), None)
def test_one_unnamed_bad_fact_is_isolated_within_the_budget(batch, data) -> None:
    size, place = batch
    status = 422 if data is None else data.draw(st.sampled_from([422, 400, 413]))

    async def scenario() -> None:
        async with serving(text_identity=False, faults=[Fault.poison(MARK, status=status, loc=False)]) as (
            server,
            session,
        ):
            given = with_poison(size, {place})
            outcomes: list[FactOutcome] = []
            report = await session.memories.import_facts(given, on_outcome=outcomes.append)
            assert_complete(report, outcomes)
            assert [o.index for o in outcomes if o.state == "rejected"] == [place]
            assert report.created == size - 1
            server.assert_each_stored_once([fact for fact in given if MARK not in fact.content])
            assert len(server.memories()) == size - 1
            # 413 blames the size of a group, so the last suspect always gets a call of its own.
            assert report.requests <= 1 + 6 + (status == 413)
            assert "This memory cannot be stored" in str(report.failures[0].error)

    run(scenario())


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(2, 25),
    places=st.sets(st.integers(0, 24), max_size=6),
    status=st.sampled_from([422, 400, 413]),
    loc=st.booleans(),
)
@example(size=25, places={0, 24}, status=422, loc=False)
def test_every_good_fact_beside_several_bad_ones_is_stored(size, places, status, loc) -> None:
    async def scenario() -> None:
        async with serving(text_identity=False, faults=[Fault.poison(MARK, status=status, loc=loc)]) as (
            server,
            session,
        ):
            given = with_poison(size, places)
            bad = {fact.content for fact in given if MARK in fact.content}
            report = await session.memories.import_facts(given)
            assert counts(report) == {
                key: number
                for key, number in {"created": size - len(bad), "rejected": len(bad)}.items()
                if number
            }
            server.assert_each_stored_once([fact for fact in given if fact.content not in bad])
            assert len(server.memories()) == size - len(bad)
            assert report.requests <= 1 + 6 + 26

    run(scenario())


@settings(deadline=None, max_examples=50)
@given(place=st.integers(0, 24), lost=st.lists(st.booleans(), max_size=9), stored=st.booleans())
@example(place=0, lost=[False, False, True], stored=False)
@example(place=8, lost=[False, False, True], stored=True)
def test_isolation_survives_lost_answers(place, lost, stored) -> None:
    """A half whose answer is lost proves nothing about the other half."""

    async def scenario() -> None:
        async with serving(text_identity=False) as (server, session):
            server.faults.add(Fault.poison(MARK, loc=False))
            for number in lost:
                fault = Fault.reset(stored=stored) if number else Fault.slow(0)
                server.faults.add(fault, on="batch")
            given = with_poison(25, {place})
            report = await session.memories.import_facts(given)
            assert [o.index for o in report.failures] == [place], report
            assert counts(report) == {"created": 24, "rejected": 1}
            server.assert_each_stored_once([fact for fact in given if MARK not in fact.content])
            assert len(server.memories()) == 24

    run(scenario())


async def test_what_is_too_much_at_once_is_not_rejected_for_it(server: LocalServer, session: Session) -> None:
    # Twelve of the large ones are too large together, six are not: no fact is to blame.
    class Large(Fault):
        def concerns(self, contents: Sequence[str]) -> bool:
            return sum(map(len, contents)) > 1300

        async def happen(self, work: Work, sleep: Sleep) -> Reply:
            return Reply.detail(413, "too large")

    server.faults.add(Large(), times=FOREVER)
    given = [f"{n} " + "x" * (200 if n < 12 else 20) for n in range(25)]
    report = await session.memories.import_facts(given)
    assert counts(report) == {"created": 25}
    server.assert_each_stored_once(given)


async def test_a_lower_limit_is_learned(server: LocalServer, session: Session) -> None:
    given = [("x" * (300 if n % 25 == 7 else 100)) + f" {n}" for n in range(250)]
    detail = [
        {
            "loc": ["body", "memories", 7, "content"],
            "type": "string_too_long",
            "msg": "String should have at most 280 characters",
            "ctx": {"max_length": 280},
        }
    ]
    server.faults.add(Fault.answer(422, detail), on="batch")
    report = await session.memories.import_facts(given, concurrency=1)
    assert counts(report) == {"created": 240, "rejected": 1, "invalid": 9}
    assert calls(server, "batch") == 11
    invalid = [o for o in report.failures if o.state == "invalid"]
    assert all(isinstance(o.error, InvalidFactError) and "at most 280" in str(o.error) for o in invalid)


async def test_an_unknown_category_is_learned(server: LocalServer, session: Session) -> None:
    given = [Fact(f"fact {n}", category="zebra" if n % 5 == 0 else "system") for n in range(100)]
    report = await session.memories.import_facts(given, concurrency=1)
    assert counts(report) == {"created": 80, "rejected": 5, "invalid": 15}
    assert calls(server, "batch") == 5  # one of 25, one of the 20 that are left of it, 60 more
    server.assert_each_stored_once([fact for fact in given if fact.category == "system"])


@pytest.mark.virtual_clock
async def test_what_is_sent_again_after_the_lesson_is_spared() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.answer(500, "x"), on="batch")
        given = [Fact(f"fact {n}", category="zebra" if n % 5 == 0 else "system") for n in range(50)]
        report = await session.memories.import_facts(given, concurrency=2)
        assert counts(report) == {"created": 40, "rejected": 5, "invalid": 5}
        assert sizes(server) == [25, 25, 20, 20]
        assert {o.index < 25 for o in report.failures if o.state == "invalid"} == {True}


# What ends an import


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (402, APIError),
        (403, APIError),
        (302, APIError),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_refused_key_ends_it_after_one_round(
    server: LocalServer, session: Session, status: int, error: type[Exception], concurrency: int
) -> None:
    server.faults.add(Fault.answer(status, "no"), on="any", times=FOREVER)
    outcomes: list[FactOutcome] = []
    with pytest.raises(ImportStoppedError, match=r"the import was stopped: .*no") as stopped:
        await session.memories.import_facts(facts(2_500), concurrency=concurrency, on_outcome=outcomes.append)
    assert isinstance(stopped.value.__cause__, error)
    report = stopped.value.report
    assert_complete(report, outcomes)
    assert report.pulled == report.not_sent <= (concurrency + 1) * 25
    assert not report.complete
    assert 1 <= len(server.requests) <= concurrency
    assert server.memories() == []
    assert all("the import was stopped" in str(o.error) for o in outcomes)


@pytest.mark.parametrize("status", [404, 409, 418, 451])
async def test_a_refusal_that_was_not_foreseen_costs_its_batch(
    server: LocalServer, session: Session, status: int
) -> None:
    server.faults.add(Fault.slow(0), *[Fault.answer(status, "no")] * 2, Fault.slow(0), on="batch")
    server.faults.add(*[Fault.answer(status, "no")] * 2, on="batch")
    report = await session.memories.import_facts(facts(250), concurrency=1)
    assert counts(report) == {"created": 150, "not_sent": 100}
    assert {str(o.error) for o in report.failures} == {f"cannot create a batch of 25: {words(status)}: no"}
    assert not report.complete


def words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


@pytest.mark.parametrize("status", [404, 409, 418])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_few_of_them_in_a_row_end_the_import(
    server: LocalServer, session: Session, status: int, concurrency: int
) -> None:
    server.faults.add(Fault.answer(status, "no"), on="any", times=FOREVER)
    outcomes: list[FactOutcome] = []
    with pytest.raises(ImportStoppedError, match=r"the import was stopped: .*no") as stopped:
        await session.memories.import_facts(facts(2_500), concurrency=concurrency, on_outcome=outcomes.append)
    assert isinstance(stopped.value.__cause__, APIError)
    assert_complete(stopped.value.report, outcomes)
    assert counts(stopped.value.report) == {"not_sent": stopped.value.report.pulled}
    assert len(server.requests) == 3


@pytest.mark.parametrize("stage", ["half", "single", "again"])
async def test_a_key_that_is_refused_midway_ends_it_too(
    server: LocalServer, session: Session, stage: str
) -> None:
    server.faults.add(Fault.poison(MARK, loc=False))
    if stage == "half":
        server.faults.add(Fault.slow(0), Fault.answer(401, "no"), on="batch")
    else:
        server.faults.add(Fault.answer(403, "no"), on="create")
    with pytest.raises(ImportStoppedError) as stopped:
        await session.memories.import_facts(with_poison(25, {24}))
    report = stopped.value.report
    stored = {memory["content"] for memory in server.memories()}
    assert report.created == len(stored)
    assert report.not_sent == 25 - len(stored)
    assert all(o.fact is not None and o.fact.content not in stored for o in report.failures)


@pytest.mark.parametrize("detail", ["Memory writes are globally paused", "Rate limiter unavailable"])
@pytest.mark.virtual_clock
async def test_paused_writes_end_it_after_one_round_with_its_retries(detail: str) -> None:
    async with serving(faults=[]) as (server, session):
        server.faults.add(Fault.answer(503, detail), on="batch", times=FOREVER)
        with pytest.raises(ImportStoppedError, match=detail) as stopped:
            await session.memories.import_facts(facts(2_500), concurrency=3)
        assert isinstance(stopped.value.__cause__, ServerError)
        assert 4 <= len(server.requests) <= 3 * 4
        assert counts(stopped.value.report) == {"not_sent": stopped.value.report.pulled}
        assert calls(server, "list") == 0


@pytest.mark.virtual_clock
async def test_a_pause_that_passes_is_waited_out_without_a_look() -> None:
    async with serving(text_identity=False) as (server, session):
        server.faults.add(Fault.answer(503, "Memory writes are globally paused"), on="batch", times=3)
        report = await session.memories.import_facts(facts(100), concurrency=1)
        assert counts(report) == {"created": 100}
        assert calls(server, "list") == 0
        assert report.retries == 3
        server.assert_each_stored_once(facts(100))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.localhost:9"])
@pytest.mark.virtual_clock
async def test_a_server_that_is_not_there_ends_it_after_one_round(address: str) -> None:
    before = asyncio.get_running_loop().time()
    async with Session("omi_dev_x", base_url=address) as session:
        with pytest.raises(ImportStoppedError) as stopped:
            await session.memories.import_facts(facts(2_500), concurrency=2)
    assert isinstance(stopped.value.__cause__, ConnectError)
    report = stopped.value.report
    assert 4 <= report.requests <= 2 * 4
    assert report.not_sent == report.pulled <= 75
    assert elapsed(before) < 60


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("words", ["", "x"])
async def test_a_redirect_ends_the_import_at_once(status: int, words: str) -> None:
    async with serving() as (server, session):
        headers = {"Location": "https://elsewhere.example/v1"} if status != 304 else {}
        server.faults.add(Fault.answer(status, body=words.encode(), headers=headers), on="batch")
        with pytest.raises(ImportStoppedError, match="elsewhere.example" if headers else "304") as stopped:
            await session.memories.import_facts(facts(100), concurrency=1)
        assert isinstance(stopped.value.__cause__, APIError)
        assert counts(stopped.value.report) == {"not_sent": 25}
        assert calls(server, "batch") == 1


ESCAPES = "\x1b[2J\r\n\x07\u202e\x9b"
LONG = ESCAPES + "Q" * 200_000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, {"detail": LONG}),
        (422, {"detail": [{"loc": ["body", "memories", 0, LONG], "msg": LONG, "type": LONG}]}),
        (422, {"detail": [{"loc": ["body", "memories", 0, "x"], "msg": "m" * 99, "type": "t"}] * 5_000}),
        (422, {"detail": [{"loc": [LONG], "msg": LONG}] * 3}),
        (422, {"detail": {"message": LONG, "reason": [[[[[[[LONG]]]]]]]}}),
        (404, {"detail": LONG}),
        (409, {"detail": {"code": LONG, LONG: LONG}}),
        (418, {"detail": LONG}),
        (401, {"detail": LONG}),
        (500, {"detail": LONG}),
        (200, LONG),
        (200, {"memories": [{"id": LONG, "content": "fact 0", "created_at": LONG}]}),
    ],
)
@pytest.mark.virtual_clock
async def test_words_of_a_server_are_bounded_and_move_no_cursor(
    status: int, body: object, tmp_path: Path
) -> None:
    # Catches: an answer of megabytes that is kept once for each fact; escapes that reach a terminal.
    async with serving(text_identity=False) as (server, session):
        fault = Fault.answer(status, body=json.dumps(body).encode())
        server.faults.add(fault, on={"batch", "create"}, times=FOREVER)
        try:
            report = await session.memories.import_facts(facts(3), journal=tmp_path / "journal")
        except ImportStoppedError as error:
            report = error.report
            assert_fit([str(error), repr(error), str(error.__cause__)])
        assert report.failed == len(report.failures) == 3
        assert_fit(str(report).splitlines())
        for outcome in report.failures:
            assert_fit([str(outcome.error), json.dumps(outcome.to_dict()), repr(outcome)])
            assert len(repr(getattr(outcome.error, "detail", ""))) < 100_000
        kept = all_of(tmp_path)
        assert len(kept) < 200_000
        assert ESCAPES[:4].encode() not in kept


def all_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def assert_fit(lines: list[str]) -> None:
    for line in lines:
        assert len(line) < 2_000
        assert line.isprintable()


async def test_names_of_files_break_no_line_of_the_report(session: Session) -> None:
    broken = FactOutcome(0, None, "invalid", None, InvalidFactError("a\nb"), f"a{ESCAPES}.csv:7")
    report = await session.memories.import_facts([Fact("ok"), broken])
    assert report.failures[0].origin == f"a{ESCAPES}.csv:7"
    *_, line = str(report).splitlines()
    assert line.startswith(r"  a\x1b[2J\r\n\x07\u202e\x9b.csv:7: invalid: a\nb")
    with pytest.raises(ExceptionGroup) as failed:
        report.raise_for_failures()
    assert all(note.isprintable() for note in failed.value.exceptions[0].__notes__)
