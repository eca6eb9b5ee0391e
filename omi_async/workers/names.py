"""The names of imports and of their parts."""

from __future__ import annotations

from typing import Self

import attrs

__all__ = ["PartName"]


@attrs.frozen
class PartName:
    """The name of a part: ``"dana/3"`` is part 3 of the import ``dana``.

    Attributes:
        whole: the name of the import.
        number: of the part, from 0.
    """

    whole: str
    number: int

    @classmethod
    def parse(cls, text: str, parts: int | None = None) -> Self:
        """Read a name. Raises ValueError if it is none, or one of a part that there is not."""
        whole, slash, digits = text.rpartition("/")
        if not slash or not whole or not (digits.isascii() and digits.isdecimal()):
            raise ValueError(
                f"a part has a name such as 'dana/3' (the import's, a slash, a number), not {text!r}"
            )
        number = int(digits)
        if parts is not None and not number < parts:
            raise ValueError(f"part {text!r} is none of {parts!r} parts, which are numbered from 0")
        return cls(whole, number)

    def __str__(self) -> str:
        return f"{self.whole}/{self.number}"
