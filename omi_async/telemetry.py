"""OpenTelemetry: spans and metrics of the calls and imports of all Sessions (extra ``otel``).

Enabled once, where the application sets up its tracing; nothing happens before that::

    from omi_async import telemetry

    telemetry.enable()

What there is then
==================

- *A span for each call* (``omi list``, ``omi batch``, ...; its kind is INTERNAL), around all of its attempts
  and the waits between them: ``omi.call.kind``, ``omi.call.attempts``, ``omi.call.quota_wait`` (seconds
  waited for quota windows), ``omi.call.outcome``, and ``error.type`` if it failed. Each attempt is an event
  of it, ``omi.attempt``, with ``http.request.resend_count`` (0 for the first one) and the
  ``http.response.status_code`` or the ``error.type``.
- *A span for each import* (``omi import``), with the counts of its report at its end
  (``omi.import.created``, ...). An import may take hours and thousands of calls, more than a trace should
  hold. So each of its calls begins a trace of its own, which links to the import; and the import links to the
  calls that carried its facts (of which the SDK keeps the last 128, unless it is told otherwise).
- *Metrics*: ``omi.client.calls`` by kind and outcome, ``omi.client.facts`` by state,
  ``omi.client.quota_wait`` (seconds, summed over all calls) by kind.

The outcomes of a call: ``ok``; ``failed``; ``in_doubt``, a write that may have been applied; ``cancelled``;
``not_made``, since the import ended first or had something else to do than to wait.

The calls as they go over the wire are shown by ``opentelemetry-instrumentation-aiohttp-client``. Its spans
are children of ours::

    from opentelemetry.instrumentation.aiohttp_client import create_trace_config

    session = Session(trace_configs=[create_trace_config()])

It puts the URL into its spans, and with it the id of a memory that is changed and the words of a search: give
it a ``url_filter`` if they must not be there. In what this module tells there is no key, no text and no id:
of the server only its address, of an error only its class.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self, get_args

from yarl import URL

from omi_async import _observing
from omi_async._api.messages import Kind, Response
from omi_async._version import __version__
from omi_async.errors import OmiError
from omi_async.importing.calls import WindowShut
from omi_async.importing.report import ImportReport, State
from omi_async.importing.stopping import ImportHalted

try:
    from opentelemetry import metrics, trace
except ImportError:
    raise ImportError("omi_async.telemetry needs OpenTelemetry: pip install 'omi-async[otel]'") from None

__all__ = ["disable", "enable"]

WRITES: Final = frozenset[Kind]({"create", "batch", "update", "delete"})

STATES: Final[tuple[State, ...]] = get_args(State)


def enable(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Show what all Sessions of the process do from now on, in spans and metrics.

    Args:
        tracer_provider: makes the spans; None for the global one, which may be set later.
        meter_provider: likewise for the metrics.
    """
    _observing.observer = _Telemetry(
        trace.get_tracer("omi_async", __version__, tracer_provider),
        metrics.get_meter("omi_async", __version__, meter_provider),
    )


def disable() -> None:
    """Show nothing any longer. Spans that have begun still end, with what is known by then."""
    _observing.observer = None


class _Telemetry:
    """The observer that makes spans and counts."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self.tracer = tracer
        self.calls = meter.create_counter("omi.client.calls", "{call}", "Calls, with all of their attempts")
        self.facts = meter.create_counter("omi.client.facts", "{fact}", "Facts that imports have settled")
        self.waits = meter.create_counter(
            "omi.client.quota_wait", "s", "Seconds that calls waited for quotas"
        )

    def call(self, kind: Kind, base_url: str, *, of_import: bool) -> AbstractContextManager[object]:
        # An import's callback or source may make calls too; those are the application's, and no part of it.
        return _Call(self, kind, base_url, _current_import.get() if of_import else None)

    def attempted(self, answer: Response | OmiError | None, waited: float) -> None:
        call = _current_call.get()
        if call is not None:  # else whoever sends with a permit of its own has made no call around it
            call.attempted(answer, waited)

    def importing(self, base_url: str, report: ImportReport) -> AbstractContextManager[object]:
        return _Import(self, base_url, report)


class _Spanned:
    """A block with a span around it, which is the current one inside."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self._current = trace.use_span(span)

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # It is not told of the error: it would record its words, which may quote facts.
        self._current.__exit__(None, None, None)
        self.ended(error)
        self.span.end()

    def ended(self, error: BaseException | None) -> None:
        """Say at the end what has become of it."""
        raise NotImplementedError


class _Import(_Spanned):
    """An import."""

    def __init__(self, telemetry: _Telemetry, base_url: str, report: ImportReport) -> None:
        super().__init__(telemetry.tracer.start_span("omi import", attributes=_address(base_url)))
        self._telemetry = telemetry
        self._report = report
        self._told = dict.fromkeys(STATES, 0)
        self._token: Token[_Import | None]

    def __enter__(self) -> Self:
        self._token = _current_import.set(self)
        return super().__enter__()

    def ended(self, error: BaseException | None) -> None:
        _current_import.reset(self._token)
        self.tell_facts()
        report = self._report
        for state in STATES:
            self.span.set_attribute(f"omi.import.{state}", getattr(report, state))
        self.span.set_attribute("omi.import.pulled", report.pulled)
        self.span.set_attribute("omi.import.requests", report.requests)
        self.span.set_attribute("omi.import.retries", report.retries)
        self.span.set_attribute("omi.import.complete", report.complete)
        if error is not None:
            _show_error(self.span, error)

    def tell_facts(self) -> None:
        """Count the facts that were settled since the last time."""
        # After each call too, and not only at the end: that may be hours away.
        for state in STATES:
            settled = getattr(self._report, state)
            if settled > self._told[state]:
                self._telemetry.facts.add(settled - self._told[state], {"omi.fact.state": state})
                self._told[state] = settled


class _Call(_Spanned):
    """A call with all of its attempts."""

    def __init__(self, telemetry: _Telemetry, kind: Kind, base_url: str, of: _Import | None) -> None:
        attributes = {"omi.call.kind": kind, **_address(base_url)}
        if of is None:
            span = telemetry.tracer.start_span(f"omi {kind}", attributes=attributes)
        else:
            span = telemetry.tracer.start_span(
                f"omi {kind}",
                trace.set_span_in_context(trace.INVALID_SPAN),  # the root of a trace
                attributes=attributes,
                links=[trace.Link(of.span.get_span_context())],
            )
        super().__init__(span)
        self._telemetry = telemetry
        self._kind = kind
        self._import = of
        self._attempts = 0
        self._waited = 0.0
        self._token: Token[_Call | None]

    def __enter__(self) -> Self:
        self._token = _current_call.set(self)
        return super().__enter__()

    def attempted(self, answer: Response | OmiError | None, waited: float) -> None:
        """Note an attempt."""
        attributes: dict[str, str | int] = {"http.request.resend_count": self._attempts}
        if isinstance(answer, Response):
            attributes["http.response.status_code"] = answer.status
        else:
            attributes["error.type"] = _type_of(answer or asyncio.CancelledError())
        self.span.add_event("omi.attempt", attributes)
        self._attempts += 1
        self._waited += waited

    def ended(self, error: BaseException | None) -> None:
        _current_call.reset(self._token)
        outcome = _outcome(self._kind, error)
        self.span.set_attribute("omi.call.attempts", self._attempts)
        self.span.set_attribute("omi.call.quota_wait", self._waited)
        self.span.set_attribute("omi.call.outcome", outcome)
        if error is not None and outcome in {"failed", "in_doubt"}:
            _show_error(self.span, error)
        self._telemetry.calls.add(1, {"omi.call.kind": self._kind, "omi.call.outcome": outcome})
        if self._waited:
            self._telemetry.waits.add(self._waited, {"omi.call.kind": self._kind})
        if self._import is not None:
            self._import.tell_facts()
            if self._attempts and self._kind in WRITES:
                self._import.span.add_link(self.span.get_span_context())


_current_call: Final[ContextVar[_Call | None]] = ContextVar("omi_async call", default=None)

_current_import: Final[ContextVar[_Import | None]] = ContextVar("omi_async import", default=None)


def _outcome(kind: Kind, error: BaseException | None) -> str:
    match error:
        case None:
            return "ok"
        case ImportHalted() | WindowShut():
            return "not_made"
        case asyncio.CancelledError():
            return "cancelled"
        case OmiError() if error.maybe_applied and kind in WRITES:
            return "in_doubt"
        case _:
            return "failed"


def _show_error(span: trace.Span, error: BaseException) -> None:
    span.set_attribute("error.type", _type_of(error))
    span.set_status(trace.StatusCode.ERROR)


def _type_of(error: BaseException) -> str:
    return type(error).__name__


def _address(base_url: str) -> dict[str, str | int]:
    """Return the server's address; the path of a base URL may be somebody's secret."""
    url = URL(base_url)
    return {"server.address": url.host or "", "server.port": url.port or 0}
