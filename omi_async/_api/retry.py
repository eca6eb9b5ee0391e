"""Whether a failed call is worth another try, and how long to wait before it.

All who try again do it with the same few lines::

    for longest in waits(retry):
        try:
            return await call()
        except OmiError as error:
            wait = wait_after(error, longest, idempotent=request.idempotent, chance=random.random())
            if wait is None:
                raise
        await asyncio.sleep(wait)
    raise AssertionError("after the last attempt there is no wait")

A loop and not a decorator, since what happens between two attempts is the caller's: the session waits for
another permit, and a prompt tells what it waits for. An import takes the waits one by one (`next`) instead of
by ``for``, because a 429 must not use up any of its attempts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import attrs

from omi_async.constants import SHORTEST_WAIT
from omi_async.errors import APIError, ConnectError, RateLimitError, ResponseLostError, ServerError

__all__ = ["Retry", "jittered", "wait_after", "waits", "worth_retrying"]


NOT_YET: Final = frozenset({421, 423, 425})
"""Statuses that come before the work, and may pass: the wrong server of several (Misdirected Request), a
resource that is locked (Locked), a call that came too early for a new TLS connection (Too Early)."""


def worth_retrying(error: BaseException, *, idempotent: bool) -> bool:
    """Decide whether the same call may be made again as it is.

    What was certainly not applied and may pass: yes. What may have been applied: only if doing it twice is
    the same as doing it once. What will be refused again: no.
    """
    match error:
        case ConnectError() | RateLimitError():
            return True
        case APIError(status=status) if status in NOT_YET:
            return True
        case ResponseLostError() | ServerError():
            return idempotent or not error.maybe_applied
        case _:
            return False


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise ValueError(f"Retry.{attribute.name} must be a positive number, not {value!r}")


@attrs.frozen
class Retry:
    """How often, and after which waits, a failed call is tried again.

    The n-th wait is a random number of seconds between half of and the whole of ``base * 2**n``, at most
    `cap`. If the server names a wait (`Retry-After`), that wait is kept in full instead, whatever `cap`
    says.

    Attributes:
        attempts: calls in all, the first one included; 1 means no retry.
        base: seconds, the first wait at most.
        cap: seconds, any computed wait at most.
    """

    attempts: int = attrs.field(default=4, validator=[attrs.validators.instance_of(int), _positive])
    base: float = attrs.field(default=0.5, validator=_positive)
    cap: float = attrs.field(default=8.0, validator=_positive)


def waits(retry: Retry, attempts: int | None = None) -> Iterator[float | None]:
    """Yield for each attempt the longest wait that may follow it, in seconds; None for the last attempt.

    Args:
        retry: whose waits.
        attempts: calls in all, at least 1, if not as many as `retry` says.
    """
    # Imported here, since backoff imports asyncio, and this module works without.
    from backoff import expo  # noqa: PLC0415

    number = retry.attempts if attempts is None else attempts
    # backoff's generators begin with a None, for its own driver to send() to.
    yield from islice(expo(factor=retry.base, max_value=retry.cap), 1, max(number, 1))
    yield None


def wait_after(
    error: BaseException, longest: float | None, *, idempotent: bool, chance: float
) -> float | None:
    """Return the seconds to wait before the call is made again, or None if it is not to be made again.

    Args:
        error: what became of the attempt.
        longest: of `waits`.
        idempotent: whether making the call twice is the same as making it once.
        chance: a random number between 0 and 1.
    """
    if longest is None or not worth_retrying(error, idempotent=idempotent):
        return None
    if isinstance(error, RateLimitError):
        # The pacer has learned of it, and gives the next permit when the window opens: to each caller in its
        # turn, and not to all of them at the same moment.
        return 0.0
    asked: float | None = getattr(error, "retry_after", None)
    # Never jittered: a call that comes earlier than the server has asked for is refused again.
    return jittered(longest, chance) if asked is None else max(asked, SHORTEST_WAIT)


def jittered(longest: float, chance: float) -> float:
    """Return from half of a wait to the whole of it, so that callers who failed together come back apart."""
    # Not backoff's full jitter, which may come back at once to a server that has just failed.
    return longest * (0.5 + chance / 2)
