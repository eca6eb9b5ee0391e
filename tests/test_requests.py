"""What is sent and what the answers mean, with nothing running. The answers are in tests/wire."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from omi_async import Fact, InvalidRequestError, Memory, ResponseFormatError, errors
from omi_async._api import json as _json
from omi_async._api.endpoints import (
    create_batch,
    create_memory,
    delete_memory,
    import_batch,
    import_single,
    interpret,
    list_for_import,
    list_memories,
    update_memory,
)
from omi_async._api.failures import refused_items
from omi_async._api.messages import BatchAnswer, ListedMemory, Page, Request, Response
from omi_async.fact import fact_payload

WIRE = Path(__file__).parent / "wire"
FACT = Fact("User is vegetarian", category="interesting", tags=["diet"])
PAYLOAD = fact_payload(FACT)
NOON = 1_795_348_800.0

REQUESTS: dict[str, Callable[[], Request[Any]]] = {
    "list_memories": list_memories,
    "create_memory": lambda: create_memory(FACT),
    "create_batch": lambda: create_batch([FACT]),
    "update_memory": lambda: update_memory("mem_1", {"content": "x"}),
    "delete_memory": lambda: delete_memory("mem_1"),
    "list_identities": lambda: list_for_import(limit=1000, offset=0),
    "import_batch": lambda: import_batch([PAYLOAD]),
    "import_single": lambda: import_single(PAYLOAD),
}
DOCUMENTED = ["list_memories", "create_memory", "create_batch", "update_memory", "delete_memory"]


def cases(name: str) -> list[Any]:
    found = json.loads((WIRE / f"{name}.json").read_text())
    return [pytest.param(name, case, id=f"{name}: {case['name']}") for case in found]


def answer(case: dict[str, Any]) -> Response:
    body = case["text"] if "text" in case else json.dumps(case["body"])
    return Response(
        case["status"],
        case.get("headers", {}),
        body.encode(),
        cut=case.get("cut", False),
        received=NOON + 5.0,
    )


def plain(result: Any) -> Any:
    """A result as the JSON of the cases writes it."""
    match result:
        case Memory():
            return result.to_dict()
        case Page():
            return {
                "memories": [plain(memory) for memory in result.memories],
                "truncated": result.truncated,
                "unreadable": result.unreadable,
                **({"odd": [*result.odd], "problems": [*result.problems]} if result.problems else {}),
            }
        case list():
            return [plain(item) for item in result]
        case _:
            return result


def check(request: Request[Any], case: dict[str, Any]) -> None:
    if "error" not in case:
        assert plain(interpret(request, answer(case))) == case["result"]
        return
    with pytest.raises(errors.OmiError) as caught:
        interpret(request, answer(case))
    error = caught.value
    assert type(error).__name__ == case["error"]
    for name, value in case["attributes"].items():
        if value is not None or name != "problems":  # null: some problem, whose place is the parser's affair
            found = getattr(error, name)
            assert (list(found) if name == "problems" else found) == value
    if "readable" in case:
        assert isinstance(error, ResponseFormatError)
        assert [memory.id for memory in error.memories] == case["readable"]
    assert case.get("message", "") in str(error)
    assert len(str(error)) < 700
    assert str(error).isprintable()
    for words in case.get("hidden", ()):
        assert words not in str(error)
        assert words not in "".join(getattr(error, "problems", ()))


@pytest.mark.parametrize(("name", "case"), [case for name in DOCUMENTED for case in cases(name)])
def test_what_a_success_means(name: str, case: dict[str, Any]) -> None:
    check(REQUESTS[name](), case)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(("_file", "case"), cases("refusals"))
def test_what_a_failure_means_for_every_call(name: str, _file: str, case: dict[str, Any]) -> None:
    request = REQUESTS[name]()
    check(request, case)
    with pytest.raises(errors.APIError, match=f"^cannot {request.operation}: {case['status']} "):
        interpret(request, answer(case))


@given(
    st.sampled_from(sorted(REQUESTS)),
    st.integers(-1, 1100),
    st.dictionaries(
        st.sampled_from(["Retry-After", "Date", "Location", "Content-Type", "X-Omi-List-Truncated"]),
        st.text(),
    ),
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["detail", "loc", "msg", "memories", "id", "content", "success"]),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
@example("delete_memory", 302, {"Location": "http://[::1"}, b"", False)
def test_any_answer_at_all_is_a_result_or_an_error_of_ours(
    name: str, status: int, headers: dict[str, str], body: bytes, cut: bool
) -> None:
    error: errors.OmiError | None = None
    try:
        interpret(REQUESTS[name](), Response(status, headers, body, cut, NOON))
    except errors.OmiError as raised:
        error = raised
    if error is not None:
        refused_items(error)
    assert isinstance(error, errors.APIError) is not (200 <= status < 300)


def test_headers_are_found_whatever_their_case() -> None:
    for headers in (
        {"retry-AFTER": "7"},
        CIMultiDict({"Retry-After": "7"}),
        CIMultiDictProxy(CIMultiDict({"RETRY-AFTER": "7"})),
    ):
        assert Response(429, headers).header("Retry-After") == "7"
        assert Response(429, headers).header("Date") is None


def test_a_page_full_of_half_titles_is_given_up_early() -> None:
    page = Response(502, {"Content-Type": "text/html"}, b"<title" * 5_000_000)
    with pytest.raises(errors.ServerError, match="502 Bad Gateway"):  # to look through it all takes hours
        interpret(create_memory(FACT), page)


def test_a_delete_that_finds_nothing_after_one_that_was_lost_has_done_its_work() -> None:
    gone = Response(404, {}, b'{"detail":"Memory not found"}')
    interpret(delete_memory("x"), gone, repeated=True)
    requests: list[Request[Any]] = [delete_memory("x"), update_memory("x", {"content": "a"})]
    for request in requests:
        with pytest.raises(errors.NotFoundError):
            interpret(request, gone, repeated=request.method != "DELETE")
    with pytest.raises(errors.PaymentRequiredError):
        interpret(delete_memory("x"), Response(402), repeated=True)


# What is sent


def test_the_documented_calls() -> None:
    sent = {
        name: (request.method, request.path, None if request.body is None else json.loads(request.body))
        for name, build in REQUESTS.items()
        for request in [build()]
    }
    payload = {
        "content": "User is vegetarian",
        "category": "interesting",
        "visibility": "private",
        "tags": ["diet"],
    }
    root = "/v1/dev/user/memories"
    assert sent == {
        "list_memories": ("GET", f"{root}?limit=25&offset=0", None),
        "create_memory": ("POST", root, payload),
        "create_batch": ("POST", f"{root}/batch", {"memories": [payload]}),
        "update_memory": ("PATCH", f"{root}/mem_1", {"content": "x"}),
        "delete_memory": ("DELETE", f"{root}/mem_1", None),
        "list_identities": ("GET", f"{root}?limit=1000&offset=0", None),
        "import_batch": ("POST", f"{root}/batch", {"memories": [payload]}),
        "import_single": ("POST", root, payload),
    }


def test_what_may_be_repeated_and_what_is_slow() -> None:
    requests = {name: build() for name, build in REQUESTS.items()}
    assert {name for name, request in requests.items() if request.idempotent} == {
        "list_memories",
        "list_identities",
        "delete_memory",
    }
    assert {name for name, request in requests.items() if request.slow} == {"create_batch", "import_batch"}
    assert {name for name, request in requests.items() if request.attempts == 1} == {
        "list_identities",
        "import_batch",
        "import_single",
    }


@pytest.mark.parametrize(
    ("categories", "sent"),
    [
        (("interesting", "system"), "interesting,system"),
        (["work"], "work"),
        ("work", "work"),
        ("a&b=c d", "a&b=c d"),
        ((), None),
        ("", None),
    ],
)
def test_the_query_of_a_list(categories: Any, sent: str | None) -> None:
    query = parse_qs(urlsplit(list_memories(limit=7, offset=3, categories=categories).path).query)
    expected = {"limit": ["7"], "offset": ["3"]}
    assert query == expected | ({} if sent is None else {"categories": [sent]})


@pytest.mark.parametrize(
    ("limit", "offset"), [(0, 0), (-1, 0), (1001, 0), (1, -1)], ids=["zero", "negative", "too many", "offset"]
)
def test_a_list_that_the_server_would_silently_clamp_is_refused(limit: int, offset: int) -> None:
    for build in (list_memories, list_for_import):
        with pytest.raises(ValueError, match=r"limit must be|offset must"):
            build(limit=limit, offset=offset)
    for most in (1, 1000):
        list_memories(limit=most, offset=0)


@given(st.text())
@example("a/b")
@example("../batch")
@example("%2e%2e")
@example("%2F")
@example("a?b#c")
@example("mem_\u00fc \n\x00")
@example("batch")
def test_an_id_is_one_segment_of_the_path(memory_id: str) -> None:
    for build in (delete_memory, lambda it: update_memory(it, {"content": "a"})):
        if memory_id in {"", ".", ".."}:
            with pytest.raises(ValueError, match="not a memory id"):
                build(memory_id)
            continue
        path = build(memory_id).path
        assert path.isascii()
        prefix, _, segment = path.rpartition("/")
        assert prefix == "/v1/dev/user/memories"
        assert unquote(segment) == memory_id
        assert not set(segment) & set("/?#&; ")
        assert segment not in {"", ".", "..", "%2e", "%2e%2e"}


@pytest.mark.parametrize("memory_id", ["", ".", "..", "\ud800"])
def test_an_id_that_names_something_else_is_refused(memory_id: str) -> None:
    with pytest.raises(ValueError, match="not a memory id"):
        delete_memory(memory_id)


def test_an_update_changes_something() -> None:
    with pytest.raises(ValueError, match="nothing to update"):
        update_memory("x", {})


def test_a_batch_holds_at_most_25() -> None:
    for build in (lambda size: create_batch([FACT] * size), lambda size: import_batch([PAYLOAD] * size)):
        build(25)
        with pytest.raises(ValueError, match="at most 25 facts, not 26"):
            build(26)


def test_what_is_sent_stands_in_no_repr() -> None:
    for build in REQUESTS.values():
        assert "vegetarian" not in repr(build())
    assert "vegetarian" not in repr(Response(200, {}, b"vegetarian"))


# What the importer reads


def success(body: Any) -> Response:
    return Response(200, {"X-Omi-List-Truncated": "true"}, json.dumps(body).encode())


def read(name: str, body: Any) -> Any:
    return interpret(REQUESTS[name](), success(body))


BROKEN: list[Any] = [
    None,
    [],
    "x",
    {},
    {"id": "1"},
    {"content": "a"},
    {"id": 1, "content": "a"},
    {"id": "", "content": "a"},
    {"id": "1", "content": None},
]


def test_the_importer_counts_what_it_cannot_read() -> None:
    good = {"id": "1", "content": "a", "created_at": "2026-01-01T00:00:00Z", "tags": "whatever"}
    undated = {"id": "2", "content": "b", "created_at": 5}
    found = [ListedMemory("1", "a", good["created_at"], tags="whatever"), ListedMemory("2", "b", "")]
    page = [good, *BROKEN, undated]
    listed = Page(found, truncated=True, unreadable=len(BROKEN), answer=success(page))
    assert read("list_identities", page) == listed
    batch = {"memories": page}
    named = BatchAnswer(["1", "2"], ["a", "b"], [good["created_at"], ""], success(batch), page)
    assert read("import_batch", batch) == named
    single = BatchAnswer(["1"], ["a"], [good["created_at"]], success(good), [good])
    assert read("import_single", good) == single
    for broken in BROKEN:
        assert read("import_single", broken) == BatchAnswer([], [], [], success(broken), [broken])


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("list_identities", {}),
        ("list_identities", None),
        ("import_batch", []),
        ("import_batch", {"memories": {}}),
    ],
)
def test_the_importer_refuses_what_is_no_such_answer(name: str, body: Any) -> None:
    with pytest.raises(ResponseFormatError, match="expected an"):
        read(name, body)


# refused_items


def refusal(detail: Any, status: int = 422) -> errors.OmiError:
    with pytest.raises(errors.OmiError) as caught:
        interpret(create_batch([FACT]), Response(status, {}, _json.dumps({"detail": detail})))
    return caught.value


def problem(*loc: Any, **more: Any) -> dict[str, Any]:
    return {"loc": list(loc), "msg": "no good", **more}


@pytest.mark.parametrize(
    ("detail", "refused"),
    [
        ([problem("body", "memories", 3, "content")], {3: "content: no good"}),
        ([problem("body", "memories", 0)], {0: ": no good"}),
        (
            [
                problem("body", "memories", 3, "tags", 0),
                problem("body", "memories", 3, "content"),
                problem("body", "memories", 24, "category", msg=None, type="enum"),
            ],
            {3: "tags.0: no good; content: no good", 24: "category: enum"},
        ),
        ([problem("body", "memories", 1, {"a": "secret"}, msg={"input": "secret"})], {1: "?: refused"}),
        ([problem("body", "memories", 3, "content"), problem("body", "memories")], {}),
        ([problem("body", "memories", True, "content")], {}),
        ([problem("body", "memories", -1, "content")], {}),
        ([problem("body", "memories", "3", "content")], {}),
        ([problem("body", "memories", 3.0, "content")], {}),
        ([problem("query", "memories", 3, "content")], {}),
        ([problem()], {}),
        (["body"], {}),
        ([{"loc": "body"}], {}),
        ([], {}),
        ("memories 3", {}),
        ({"loc": ["body", "memories", 3]}, {}),
        (None, {}),
    ],
)
def test_a_422_names_the_items_that_it_refuses_or_none(detail: Any, refused: dict[int, str]) -> None:
    assert refused_items(refusal(detail)) == refused


def test_only_a_refusal_of_the_request_names_items() -> None:
    detail = [problem("body", "memories", 3, "content")]
    assert refused_items(refusal(detail, 400)) == {3: "content: no good"}
    assert refused_items(refusal(detail, 500)) == {}
    assert refused_items(errors.OmiError("m")) == {}
    assert isinstance(refusal(detail), InvalidRequestError)


facts = st.builds(
    Fact,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip),
    category=st.none() | st.sampled_from(["work", "größe", "a-b"]),
    visibility=st.sampled_from(["private", "public"]),
    tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=3),
    origin=st.none() | st.just("facts.csv:17"),
)


@given(st.lists(facts, max_size=25))
def test_what_is_sent_of_checked_facts_is_what_the_strict_writer_would_write(given) -> None:
    # Not the same bytes: without orjson, the faster writer writes escapes.
    payloads = [fact_payload(fact) for fact in given]
    strict = _json.dumps({"memories": payloads})
    assert json.loads(import_batch(payloads).body or b"") == json.loads(strict)
    assert json.loads(create_batch(given).body or b"") == json.loads(strict)
    for fact, payload in zip(given[:1], payloads, strict=False):
        strict = _json.dumps(dict(payload))
        assert json.loads(import_single(payload).body or b"") == json.loads(strict)
        assert json.loads(create_memory(fact).body or b"") == json.loads(strict)


@pytest.mark.parametrize(
    "body", [b'[{"id": "\\ud800", "content": "a"}]', b'[{"weight": NaN}]', b"[", b"\xff"]
)
def test_an_importers_answer_is_refused_if_its_strings_are_unsound(body: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        interpret(list_for_import(limit=1000, offset=0), Response(200, {}, body))


def test_an_importers_answer_may_hold_any_number_that_is_not_read() -> None:
    body = b'[{"id": "1", "content": "a", "weight": 123456789012345678901}]'
    page = interpret(list_for_import(limit=1000, offset=0), Response(200, {}, body))
    assert page.memories == [ListedMemory("1", "a", "")]


# Answers that are too much


@pytest.mark.parametrize("row", [b"{}", b"0", b"[]", b'""'], ids=bytes.decode)
@pytest.mark.parametrize("status", [200, 422, 500])
def test_an_answer_of_tiny_rows_is_bounded_before_it_takes_memory(row: bytes, status: int) -> None:
    body = b"[" + b",".join([row] * 3_000_000) + b"]"
    requests: list[Request[Any]] = [list_memories(), list_for_import(limit=25, offset=0)]
    requests += [create_batch([Fact("a")]), import_batch([PAYLOAD]), create_memory(Fact("a"))]
    for request in requests:
        with pytest.raises(errors.OmiError) as caught:
            interpret(request, Response(status, body=body))
        assert getattr(caught.value, "detail", None) is None
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("count", [10_001, 50_000])
def test_a_page_has_no_more_rows_than_anybody_asks_for(count: int) -> None:
    body = b"[" + b",".join([b"{}"] * count) + b"]"
    requests: list[Request[Any]] = [list_memories(), list_for_import(limit=25, offset=0)]
    for request in requests:
        with pytest.raises(ResponseFormatError, match="elements are too many"):
            interpret(request, Response(200, body=body))
    with pytest.raises(ResponseFormatError, match="elements are too many"):
        interpret(create_batch([Fact("a")]), Response(200, body=b'{"memories": ' + body + b"}"))


def test_a_page_of_commas_is_a_page() -> None:
    memories = [{"id": str(number), "content": "," * 500, "tags": ["a,b"] * 3} for number in range(1000)]
    page = interpret(list_memories(limit=1000), Response(200, body=json.dumps(memories).encode()))
    assert len(page.memories) == 1000


WILD = "\x1b[31mred\r\n\x00\u202e\u2028" + "x" * 10_000


@pytest.mark.parametrize("status", [302, 400, 408, 418, 422, 429, 500])
@pytest.mark.parametrize(
    "detail",
    [
        WILD,
        [{"loc": ["body", "memories", 0, WILD], "msg": WILD}],
        {"message": WILD, "code": WILD},
        [WILD] * 100,
    ],
    ids=["text", "list", "object", "texts"],
)
def test_a_servers_words_reach_messages_short_and_tame(status: int, detail: Any) -> None:
    response = Response(status, {"Location": f"http://{WILD}/"}, json.dumps({"detail": detail}).encode())
    with pytest.raises(errors.OmiError) as caught:
        interpret(import_batch([PAYLOAD]), response)
    for words in (str(caught.value), *refused_items(caught.value).values()):
        assert words.isprintable()
        assert len(words) < 700


def test_the_examples_of_the_package_hold() -> None:
    import omi_async._api  # noqa: PLC0415  # what is tested

    results = doctest.testmod(omi_async._api)
    assert results.attempted > 4
    assert not results.failed
