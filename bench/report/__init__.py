"""The report over results: sections, each a file, rendered to Markdown and to a page, with tables and figures as files.

write(Results(Path("results/digits"), columns=Catalog().columns()), Path("reports/digits"), title="digits")
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.record.results import Results
from bench.report import place, render_html, render_markdown
from bench.report.blocks import Block, Data, Picture, Text
from bench.report.sections import SECTIONS, WITHOUT_RUNS, Section, failed, isolated
from bench.report.sections.failures import reasons
from bench.report.sections.memory import memory_table
from bench.report.sections.scaling import scaling_table
from bench.report.style import SCREEN, known, theme
from bench.report.summary import terminal_table

__all__ = ["memory_table", "reasons", "scaling_table", "terminal_table", "write"]


def drawn(block: Block) -> Block:
    """The block; a picture as its files, without the many parts of its figure."""
    if isinstance(block, Picture):
        _ = block.files
        block.drawing.clear()
    return block


def _shown(block: Block, results: Results) -> Block:
    """As `drawn`; a picture that cannot be drawn is replaced by a line, if the reading is lenient."""
    try:
        return drawn(block)
    except Exception as error:  # matplotlib raises anything over odd numbers
        return _in_place(results, block, error)


@contextmanager
def _young() -> Iterator[None]:
    """The garbage that figures leave is looked for less often, and not among all that torch and pandas loaded."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def write(
    results: Results, out: Path, *, title: str, style: str = SCREEN, watched: render_html.Watched | None = None
) -> Path:
    """Write `report.md`, `index.html`, `tables/*.csv` and `figures/*` under `out`; return the path of `report.md`.

    `files.csv` lists them. What no such list names is the user's, and neither removed nor replaced.

    style: of figures, one of bench.report.style.STYLES. watched: the page tells that it is written anew while a sweep
    runs, and reloads itself. Raises: ConfigError where there is none of this name;
    StoreError where a record is corrupt (unless results are lenient) or `out` cannot be written
    or holds a file of the user's in the place of one of these.
    """
    with theme(style), known(results.catalog):
        sections = WITHOUT_RUNS if results.probed.empty else SECTIONS  # read before what is new is looked at
        with _young():
            return _written(results, sections, out, title, watched)


def _written(
    results: Results, sections: Sequence[Section], out: Path, title: str, watched: render_html.Watched | None
) -> Path:
    blocks = [_shown(block, results) for section in sections for block in isolated(section)(results)]
    in_place = partial(_in_place, results)
    files = render_markdown.rendered(blocks, title=title, in_place=in_place)
    page = render_html.rendered(blocks, title=title, in_place=in_place, watched=watched)
    place.publish(out, {**files, render_html.PAGE: page.encode(errors="replace")})
    return out / render_markdown.PAGE


def _in_place(results: Results, block: Block, error: Exception) -> Text:
    """A line that says that the block could not be rendered. Raises: the error, unless the reading is lenient."""
    if not results.lenient:
        raise error
    named = f" {block.name}" if isinstance(block, Picture | Data) else ""
    return failed(results, f"{type(block).__name__.lower()}{named}", error)
