"""What somebody wants imported, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from omi_async.cli.imports.inputs import Inputs
    from omi_async.importing.delivery import OnUnknown
    from omi_async.importing.lanes import Lanes

__all__ = ["ImportOptions"]


class ImportOptions(NamedTuple):
    """What is to be imported, and how.

    Attributes:
        journal: the file that was named; None for the default one.
        no_journal: none at all.
    """

    paths: tuple[str, ...]
    wanted: str
    mapping: dict[str, str]
    defaults: dict[str, Any]
    concurrency: int
    failures: Path | None
    journal: Path | None
    no_journal: bool
    dedupe: bool
    skip_existing: bool
    on_unknown: OnUnknown
    max_wait: float | None
    lanes: Lanes

    def check(self) -> None:
        """Raise `click.UsageError` for what cannot be meant."""
        if self.paths.count("-") > 1:
            raise click.UsageError("standard input (-) can be read once only")
        if self.journal is not None and self.no_journal:
            raise click.UsageError("--journal and --no-journal exclude each other; give one of them")
        if self.journal is not None and not self.dedupe:
            raise click.UsageError(
                "a journal knows facts by their text, and --no-dedupe sends the same text several times; "
                "give --journal or --no-dedupe"
            )

    def inputs(self) -> Inputs:
        """Return the input. Raises `click.UsageError`."""
        from omi_async.cli.imports.inputs import Inputs  # noqa: PLC0415  # the readers of all formats

        try:
            return Inputs(self.paths, self.wanted, self.mapping, self.defaults)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
