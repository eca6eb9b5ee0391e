"""OpenTelemetry: what its SDK is given, over real HTTP; and that it costs nothing unless it is enabled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from omi_async import (
    ImportStoppedError,
    NotFoundError,
    RateLimitError,
    ResponseLostError,
    Retry,
    ServerError,
    Session,
)
from omi_async.local import FOREVER, Fault, LocalServer, Quota
from tests.importing.helpers import STATES, facts, serving

pytest.importorskip("opentelemetry.sdk", reason="it is of the extra test")
pytestmark = [pytest.mark.extras, pytest.mark.virtual_clock]

from opentelemetry import trace  # noqa: E402  # behind the question whether it is there
from opentelemetry.instrumentation.aiohttp_client import create_trace_config  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from omi_async import telemetry  # noqa: E402


@attrs.frozen
class Seen:
    """What was exported."""

    provider: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, name: str | None = None) -> list[Any]:
        """The spans that have ended, or those of one name."""
        return [span for span in self.exporter.get_finished_spans() if name in {None, span.name}]

    def metric(self, name: str) -> dict[tuple[Any, ...], float]:
        """The sums of a metric, by the values of its attributes."""
        data: Any = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else ()
        points = [point for metric in metrics if metric.name == name for point in metric.data.data_points]
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point.value for point in points
        }

    def everything(self) -> str:
        data: Any = self.reader.get_metrics_data()
        return "".join([*(span.to_json() for span in self.spans()), data.to_json()])


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen(TracerProvider(), InMemorySpanExporter(), InMemoryMetricReader())
    seen.provider.add_span_processor(SimpleSpanProcessor(seen.exporter))
    meters = MeterProvider([seen.reader])
    telemetry.enable(tracer_provider=seen.provider, meter_provider=meters)
    yield seen
    telemetry.disable()
    meters.shutdown()
    seen.provider.shutdown()


def resends(span: Any) -> list[int]:
    return [event.attributes["http.request.resend_count"] for event in span.events]


async def test_a_call_is_an_internal_span(seen: Seen, server: LocalServer, session: Session) -> None:
    await session.memories.create("User skis")

    (span,) = seen.spans()
    host, port = server.url.removeprefix("http://").split(":")
    assert (span.name, span.kind) == ("omi create", trace.SpanKind.INTERNAL)
    assert dict(span.attributes) == {
        "omi.call.kind": "create",
        "omi.call.attempts": 1,
        "omi.call.quota_wait": 0.0,
        "omi.call.outcome": "ok",
        "server.address": host,
        "server.port": int(port),
    }
    assert span.status.is_unset
    assert [dict(event.attributes) for event in span.events] == [
        {"http.request.resend_count": 0, "http.response.status_code": 200}
    ]


async def test_the_attempts_of_a_call_are_counted(seen: Seen, server: LocalServer, session: Session) -> None:
    server.faults.add(Fault.answer(500, "no"), Fault.reset(), on="list")

    await session.memories.list()

    (span,) = seen.spans()
    assert span.attributes["omi.call.attempts"] == 3
    assert span.attributes["omi.call.outcome"] == "ok"
    assert [dict(event.attributes) for event in span.events] == [
        {"http.request.resend_count": 0, "http.response.status_code": 500},
        {"http.request.resend_count": 1, "error.type": "ResponseLostError"},
        {"http.request.resend_count": 2, "http.response.status_code": 200},
    ]


async def test_the_seconds_that_a_call_waits_for_a_quota_are_told(seen: Seen) -> None:
    async with serving(quotas=[Quota("lists", 1, 30, "list")]) as (_, session):
        await session.memories.list()
        await session.memories.list()

    first, second = seen.spans("omi list")
    assert first.attributes["omi.call.quota_wait"] == 0
    assert second.attributes["omi.call.quota_wait"] == pytest.approx(30, abs=2)
    assert seen.metric("omi.client.quota_wait") == {("list",): second.attributes["omi.call.quota_wait"]}


async def test_the_wait_for_a_connection_is_none_for_a_quota(seen: Seen) -> None:
    async with serving(session={"connections": 1}) as (server, session):
        server.faults.add(Fault.slow(5), times=2, on="list")
        await asyncio.gather(session.memories.list(), session.memories.list())

    assert [span.attributes["omi.call.quota_wait"] for span in seen.spans()] == [0, 0]


FAILURES = [
    (Fault.answer(500, "User skis"), "create", ServerError, "in_doubt"),
    (Fault.reset(), "create", ResponseLostError, "in_doubt"),
    (Fault.answer(404, "User skis"), "create", NotFoundError, "failed"),
    (Fault.answer(500, "User skis"), "list", ServerError, "failed"),
]


@pytest.mark.parametrize(("fault", "kind", "error", "outcome"), FAILURES)
async def test_a_failure_is_told_by_its_class_alone(
    seen: Seen, fault: Fault, kind: str, error: type[Exception], outcome: str
) -> None:
    async with serving(session={"retry": Retry(attempts=1)}) as (server, session):
        server.faults.add(fault, on=kind)
        with pytest.raises(error):
            await (session.memories.create("User skis") if kind == "create" else session.memories.list())

    (span,) = seen.spans()
    assert span.attributes["omi.call.outcome"] == outcome
    assert span.attributes["error.type"] == error.__name__
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, None)
    assert seen.metric("omi.client.calls") == {(kind, outcome): 1}


async def test_a_call_that_is_not_made_for_want_of_quota_has_no_attempt(seen: Seen) -> None:
    async with serving(quotas=[Quota("lists", 1, 3000, "list")], session={"max_wait": 5}) as (_, session):
        await session.memories.list()
        for _ in range(2):  # the first one learns it by a refusal
            with pytest.raises(RateLimitError):
                await session.memories.list()

    assert [span.attributes["omi.call.attempts"] for span in seen.spans()] == [1, 1, 0]


async def test_a_cancelled_call_is_no_failure(seen: Seen) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.slow(50), on="list")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await session.memories.list()

    (span,) = seen.spans()
    assert span.attributes["omi.call.outcome"] == "cancelled"
    assert span.attributes["omi.call.attempts"] == 1
    assert span.status.is_unset


async def test_a_call_is_in_the_trace_of_its_caller_and_what_aiohttp_does_below_it(seen: Seen) -> None:
    traced = create_trace_config(tracer_provider=seen.provider)
    tracer = seen.provider.get_tracer("app")
    async with serving(session={"trace_configs": [traced]}) as (server, session):
        server.faults.add(Fault.answer(500, "no"), on="list")
        with tracer.start_as_current_span("handler") as handler:
            await session.memories.list()
            assert trace.get_current_span() is handler

    (ours,) = seen.spans("omi list")
    clients = [span for span in seen.spans() if span.kind is trace.SpanKind.CLIENT]
    assert ours.parent == handler.get_span_context()
    assert [span.parent.span_id for span in clients] == [ours.context.span_id] * 2
    assert resends(ours) == [0, 1]


async def test_an_import_is_a_span_with_its_counts_and_links_to_its_batches(seen: Seen) -> None:
    traced = create_trace_config(tracer_provider=seen.provider)
    tracer = seen.provider.get_tracer("app")
    async with serving(session={"trace_configs": [traced]}) as (_, session):
        with tracer.start_as_current_span("handler") as handler:
            report = await session.memories.import_facts([*facts(60), facts(1)[0], ""])

    (span,) = seen.spans("omi import")
    assert span.parent == handler.get_span_context()
    assert {state: span.attributes[f"omi.import.{state}"] for state in STATES} == {
        state: getattr(report, state) for state in STATES
    }
    assert span.attributes["omi.import.pulled"] == 62
    assert span.attributes["omi.import.requests"] == report.requests == 3
    assert span.attributes["omi.import.complete"] is True
    batches = seen.spans("omi batch")
    assert {link.context.span_id for link in span.links} == {batch.context.span_id for batch in batches}
    assert len(batches) == 3
    for batch in batches:
        assert batch.parent is None
        assert [link.context.span_id for link in batch.links] == [span.context.span_id]
    wire = [span.parent.span_id for span in seen.spans() if span.kind is trace.SpanKind.CLIENT]
    assert sorted(wire) == sorted(batch.context.span_id for batch in batches)
    assert seen.metric("omi.client.facts") == {("created",): 60, ("duplicate",): 1, ("invalid",): 1}


async def test_the_attempts_and_looks_of_an_import_are_shown(seen: Seen) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.answer(503, "Memory ledger is not ready"), Fault.reset(), on="batch")
        report = await session.memories.import_facts(facts(5))

    assert report.created == 5
    (span,) = seen.spans("omi import")
    calls = [call for call in seen.spans() if call is not span]
    assert sum(call.attributes["omi.call.attempts"] for call in calls) == report.requests
    looks = {look.context.span_id for look in seen.spans("omi list")}
    assert looks
    assert not looks & {link.context.span_id for link in span.links}


async def test_the_hours_that_an_import_is_parked_are_told(seen: Seen) -> None:
    async with serving(quotas=[Quota("batches", 2, 3600, "batch")]) as (_, session):
        await session.memories.import_facts(facts(100), concurrency=1)

    waits = [span.attributes["omi.call.quota_wait"] for span in seen.spans("omi batch")]
    assert waits == [0, 0, pytest.approx(3600, abs=5), 0]
    assert seen.metric("omi.client.quota_wait") == {("batch",): pytest.approx(3600, abs=5)}


async def test_facts_are_counted_while_an_import_goes_on(seen: Seen) -> None:
    counted = []
    async with serving() as (_, session):
        await session.memories.import_facts(
            facts(75),
            concurrency=1,
            on_progress=lambda _: counted.append(sum(seen.metric("omi.client.facts").values())),
        )

    assert counted[-2] >= 25
    assert sum(seen.metric("omi.client.facts").values()) == 75


async def test_calls_of_a_callback_are_no_calls_of_the_import(seen: Seen) -> None:
    async with serving() as (_, session):

        async def look(_: object) -> None:
            await session.memories.list()

        await session.memories.import_facts(facts(1), on_outcome=look)

    (span,) = seen.spans("omi import")
    (call,) = seen.spans("omi list")
    assert call.parent.span_id == span.context.span_id
    assert not call.links


async def test_an_import_that_is_stopped_has_its_span_too(seen: Seen) -> None:
    async with serving() as (server, session):
        server.faults.add(Fault.answer(401, "no"), times=FOREVER, on="batch")
        with pytest.raises(ImportStoppedError):
            await session.memories.import_facts(facts(100))

    (span,) = seen.spans("omi import")
    assert span.attributes["omi.import.complete"] is False
    assert span.attributes["omi.import.not_sent"] == span.attributes["omi.import.pulled"]
    assert {"failed", "not_made"} >= {call.attributes["omi.call.outcome"] for call in seen.spans("omi batch")}


async def test_no_key_no_text_and_no_id_is_told(seen: Seen) -> None:
    async with serving() as (server, session):
        memory = await session.memories.create("User skis")
        await session.memories.update(memory.id, content="User swims")
        await session.memories.search("what does the User do")
        server.faults.add(Fault.answer(500, {"you sent": server.api_key}), on="delete")
        await session.memories.delete(memory.id)
        with pytest.raises(NotFoundError):
            await session.memories.delete("secret-id")
        server.faults.add(Fault.answer(422, "User 3 is bad"), on="batch")
        await session.memories.import_facts([f"User {number}" for number in range(5)], journal=None)

    told = seen.everything()
    assert "omi.call.kind" in told
    for secret in (server.api_key, "User", memory.id, "secret-id", "/v1/"):
        assert secret not in told


async def test_nothing_is_told_after_disable(seen: Seen, session: Session) -> None:
    telemetry.disable()
    await session.memories.list()
    await session.memories.import_facts(facts(1))

    assert not seen.spans()


async def test_without_an_sdk_calls_are_as_always(session: Session) -> None:
    telemetry.enable()
    try:
        assert (await session.memories.import_facts(facts(30))).created == 30
    finally:
        telemetry.disable()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_opentelemetry_is_loaded_only_with_the_module_that_needs_it() -> None:
    loaded = run("import sys; from omi_async import *; import omi_async.cli; print(*sys.modules)").split()
    assert "omi_async.session" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry")]


def test_without_opentelemetry_it_is_said_what_to_install() -> None:
    run("""
import sys
sys.modules["opentelemetry"] = None
try:
    import omi_async.telemetry
except ImportError as error:
    assert "omi-async[otel]" in str(error)
else:
    raise AssertionError
""")
