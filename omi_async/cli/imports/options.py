"""The options of an import: as the command line takes them, and as one typed value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from omi_async._formats import FORMATS, INCLUDES, Format
from omi_async.cli.options import Common, fields_of
from omi_async.cli.options import common as common_options

if TYPE_CHECKING:
    from omi_async.cli.imports.inputs import Inputs
    from omi_async.importing.options import Lanes, OnExisting, OnUnknown
    from omi_async.sources._options import Long

__all__ = ["ImportOptions", "import_options"]


class ImportOptions(NamedTuple):
    """What is to be imported, and how.

    Attributes:
        journal: the file that was named; None for the default one.
        no_journal: none at all.
    """

    paths: tuple[str, ...]
    format: Format = "auto"
    mapping: dict[str, str] = {}  # noqa: RUF012  # never changed
    defaults: dict[str, Any] = {}  # noqa: RUF012  # likewise
    template: str | None = None
    where: tuple[str, ...] = ()
    under: tuple[str, ...] = ()
    only_tag: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    long: Long = "reject"
    encoding: str | None = None
    concurrency: int = 4
    failures: Path | None = None
    journal: Path | None = None
    no_journal: bool = False
    dedupe: bool = True
    skip_existing: bool = False
    on_existing: OnExisting = "keep"
    on_unknown: OnUnknown = "reconcile"
    max_wait: float | None = None
    lanes: Lanes = "batch"
    dry_run: bool = False

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
            return Inputs(
                self.paths,
                self.format,
                self.mapping,
                self.defaults,
                template=self.template,
                where=self.where,
                under=self.under,
                only_tag=self.only_tag,
                include=self.include,
                long=self.long,
                encoding=self.encoding,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error


_PATHS: Final = click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH... | -",
    type=click.Path(exists=True, allow_dash=True),
)

_WHAT: Final = (
    click.option(
        "--format",
        type=click.Choice(FORMATS),
        default="auto",
        show_default=True,
        metavar="NAME",
        help=f"What the files are: {', '.join(FORMATS[1:])}. auto looks at their content first and at their "
        "name second, and refuses what is no list of facts; text takes each line for a fact, whatever it is. "
        "Any of them may be gzipped, or in a ZIP archive or a folder.",
    ),
    click.option(
        "--map",
        "pairs",
        multiple=True,
        metavar="FIELD=KEY",
        help="Take FIELD (content, category, visibility or tags) from this key or column, such as "
        "content=data.text; category= takes it from nowhere. Without it the text is what is called content, "
        "text, memory, fact, body, note or value. May be given several times.",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help="Make the text of a row or object: 'User worked as {Title} at {Company Name}[ since {Started "
        "On}]'. An empty cell makes the record invalid, but inside of [...] it leaves that part out.",
    ),
    click.option(
        "--where",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Take only records with this value, such as 'Exclusive Shelf=read'. Several fields must all "
        "fit; of a field given several times, one value must.",
    ),
    click.option(
        "--under",
        multiple=True,
        metavar="HEADING",
        help="Take only what stands below this heading of Markdown. May be given several times.",
    ),
    click.option(
        "--only-tag",
        multiple=True,
        metavar="TAG",
        help="Take only facts with this tag, or one below it. May be given several times.",
    ),
    click.option(
        "--include",
        multiple=True,
        type=click.Choice(INCLUDES),
        metavar="NAME",
        help=f"Take also what is left out otherwise: {', '.join(INCLUDES)}. May be given several times.",
    ),
    click.option(
        "--long",
        type=click.Choice(["reject", "split"]),
        default="reject",
        show_default=True,
        help="What becomes of a text of more than 500 characters. reject: it is invalid. split: it becomes "
        "several facts, at paragraphs, lines and sentences.",
    ),
    click.option(
        "--encoding",
        metavar="NAME",
        help="What the bytes are, such as cp1252, if they are neither UTF-8 nor UTF-16.",
    ),
    click.option(
        "--category",
        metavar="WORD",
        help="The category of facts that have none. Without one the server asks a language model, fact by "
        "fact: slow.",
    ),
    click.option(
        "--visibility",
        type=click.Choice(["private", "public"]),
        help="The visibility of facts that have none. [default: private]",
    ),
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG",
        help="A tag for facts that have none. May be given several times.",
    ),
)
"""What is read, and what is made of it."""

_HOW: Final = (
    click.option(
        "--concurrency",
        type=click.IntRange(1, 100),
        default=4,
        show_default=True,
        metavar="N",
        help="Batch calls on the wire at the same time, at most. It begins with one, and takes more while "
        "the server answers them well.",
    ),
    click.option(
        "--failures",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        metavar="PATH",
        help="Write the facts that fail to this file, which import reads again. [default: a new "
        "NAME.failures.jsonl beside the first PATH]",
    ),
    click.option(
        "--journal",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Keep the journal in this file: what was sent, and what became of it, so that the same command "
        "goes on after whatever happened. [default: PATH.journal beside the first file; none for standard "
        "input]",
    ),
    click.option("--no-journal", is_flag=True, help="Keep no journal."),
    click.option(
        "--skip-existing",
        is_flag=True,
        help="Read the account's whole list first, and send nothing that it holds already.",
    ),
    click.option(
        "--on-existing",
        type=click.Choice(["keep", "add-tags"]),
        default="keep",
        show_default=True,
        help="What to do if a fact is there already, and brings other tags. keep: leave its memory as it is, "
        "and say of how many facts that is true. add-tags: give the memory the union of both, one update a "
        "memory; also for equal facts of the input.",
    ),
    click.option(
        "--on-unknown",
        type=click.Choice(["reconcile", "report", "resend"]),
        default="reconcile",
        show_default=True,
        help="What to do about facts whose call had no usable answer. reconcile: look for them in the list, "
        "and send again what is certainly absent. report: leave them in doubt. resend: send them again "
        "without looking, which stores nothing twice only on servers that know a memory by its text.",
    ),
    click.option(
        "--max-wait",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Wait so long for the server's quota windows, in all; if the next one opens later, end with "
        "exit code 4 and say when that is: the same command then goes on. [default: wait for any]",
    ),
    click.option(
        "--lanes",
        type=click.Choice(["batch", "both"]),
        default="batch",
        show_default=True,
        help="What to do while the window of batch calls is shut. batch: wait. both: send single facts "
        "meanwhile, if that ends the import sooner. Not the default, for they spend the quota of your other "
        "writes (create, update, delete), and 25 of them do what one batch does.",
    ),
    click.option(
        "--no-dedupe",
        is_flag=True,
        help="Send the same text as often as it comes; takes no memory for known texts, and keeps no "
        "journal.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Read and check everything, say what an import would take, send nothing. Needs no key; with "
        "one, what earlier commands met of its quotas counts. Does not look into the journal.",
    ),
)
"""How it is sent, and what is kept."""


def import_options(function: Callable[[Common, ImportOptions], int]) -> Callable[..., int]:
    """Give a command the common options, and those of an import as one argument of type `ImportOptions`."""

    @functools.wraps(function)
    def command(
        common: Common,
        /,
        *,
        pairs: tuple[str, ...],
        category: str | None,
        visibility: str | None,
        tags: tuple[str, ...],
        no_dedupe: bool,
        **others: Any,  # click has made them what the fields of their names are
    ) -> int:
        options = ImportOptions(
            mapping=fields_of(pairs),
            defaults={"category": category, "visibility": visibility, "tags": list(tags) or None},
            dedupe=not no_dedupe,
            **others,
        )
        options.check()
        return function(common, options)

    decorated = common_options(command)  # first, so that the help shows them last
    for option in (*reversed(_HOW), *reversed(_WHAT), _PATHS):
        decorated = option(decorated)
    return decorated
