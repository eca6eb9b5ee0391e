"""Whether a failed call is worth another try, and how long to wait before it.

Pure: chance is an argument, and the waiting is left to `backoff` at the session's edge.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any

import attrs

from omi_async.constants import SHORTEST_WAIT
from omi_async.errors import ConnectError, RateLimitError, ResponseLostError, ServerError

__all__ = ["Retry", "wait_before", "waits", "worth_retrying"]


def worth_retrying(error: BaseException, *, idempotent: bool) -> bool:
    """Decide whether the same call may be made again without asking anybody.

    What surely was not applied and may pass: yes. What may have been applied: only where doing it twice is
    the same as doing it once. What will be refused again: no.
    """
    match error:
        case ConnectError() | RateLimitError():
            return True
        case ResponseLostError() | ServerError():
            return idempotent or not error.maybe_applied
        case _:
            return False


def wait_before(retry: Retry, number: int, error: BaseException, chance: float) -> float:
    """Return the seconds to wait before retry `number` (from 0), given a `chance` between 0 and 1.

    A wait that the server asked for is kept in full, and never cut or jittered.
    """
    asked: float | None = getattr(error, "retry_after", None)
    if asked is not None:
        return max(asked, SHORTEST_WAIT)
    longest = min(retry.cap, retry.base * 2.0 ** min(number, 64))
    return longest * (0.5 + chance / 2)


def waits(retry: Retry, chance: Callable[[], float]) -> Generator[float, Any, None]:
    """Generate waits in seconds for `backoff`, which sends the error in and awaits what comes out.

    After a 429 there is nothing to wait for here: the next attempt waits for its turn, with all who wait.
    The first value is only there to be thrown away: backoff starts its generators with a `send(None)`.
    """
    error = yield 0.0
    for number in itertools.count():
        out_of_quota = isinstance(error, RateLimitError)
        error = yield 0.0 if out_of_quota else wait_before(retry, number, error, chance())


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise ValueError(f"Retry.{attribute.name} must be a positive number, not {value!r}")


@attrs.frozen
class Retry:
    """How often, and after which waits, a failed call is tried again.

    The n-th wait is a random number of seconds between half of and the whole of ``base * 2**n``, at most
    `cap`. Where the server names a wait (`Retry-After`), that wait is kept in full instead, whatever `cap`
    says.

    Attributes:
        attempts: calls in all, the first one included; 1 means no retry.
        base: seconds, the first wait at most.
        cap: seconds, any computed wait at most.
    """

    attempts: int = attrs.field(default=4, validator=[attrs.validators.instance_of(int), _positive])
    base: float = attrs.field(default=0.5, validator=_positive)
    cap: float = attrs.field(default=8.0, validator=_positive)
