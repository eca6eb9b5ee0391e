"""How the work of one call departs from the plain way: what a fault asks of the service itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from omi_async.local.messages import BROKEN_DOWN, Reply

__all__ = ["PLAIN", "Poison", "Twist", "breakdown"]


def breakdown(status: int) -> Reply:
    """Return what the service answers when its own code raised, with another status.

    The connection stays open, as it does behind a load balancer; `Fault.answer` has one that is closed.
    """
    return attrs.evolve(BROKEN_DOWN, status=status, closes=False)


@attrs.frozen
class Poison:
    """Texts that the service cannot store: see `Fault.poison`."""

    text: str | Callable[[str], bool]
    status: int = 422
    loc: bool = True
    stored_prefix: bool = False

    def first(self, contents: Sequence[str]) -> int | None:
        """Return the place of the first poisoned text."""
        return next((index for index, content in enumerate(contents) if self._holds(content)), None)

    def _holds(self, content: str) -> bool:
        return self.text in content if isinstance(self.text, str) else self.text(content)

    def refusal(self, kind: str, index: int, content: str) -> Reply:
        """Return the answer to a call of this kind whose text at `index` is poisoned."""
        if self.status >= 500:  # noqa: PLR2004 - the service's code raises, it does not refuse
            return breakdown(self.status)
        if self.status != 422 or not self.loc:  # noqa: PLR2004
            return Reply.detail(self.status, "This memory cannot be stored")
        item: list[str | int] = ["memories", index] if kind == "batch" else []
        problem = {
            "type": "value_error",
            "loc": ["body", *item, "content"],
            "msg": "Value error, this memory cannot be stored",
            "input": content,
            "ctx": {"error": {}},
        }
        return Reply.detail(422, [problem])


@attrs.frozen
class Twist:
    """The departures of one call.

    Attributes:
        refusal: what is answered instead of the work, once key, scope and quota have let the call pass.
        at_most: a batch breaks down after it has stored so many of its memories.
        breakdown: what it answers then.
        hide_newer: seconds; the list does not show yet what is younger.
        poisons: texts that are refused once they have passed every check.
    """

    refusal: Reply | None = None
    at_most: int | None = None
    breakdown: Reply = BROKEN_DOWN
    hide_newer: float = 0.0
    poisons: tuple[Poison, ...] = ()

    def under(self, standing: Twist) -> Twist:
        """Return these departures together with those of a condition that stands meanwhile."""
        return attrs.evolve(
            self,
            refusal=self.refusal or standing.refusal,
            hide_newer=max(self.hide_newer, standing.hide_newer),
            poisons=standing.poisons + self.poisons,
        )


PLAIN: Final = Twist()
