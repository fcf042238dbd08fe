"""The report over results: sections, each a file, rendered to Markdown and to a page, with tables and figures as files.

write(Results(Path("results/digits"), columns=Catalog().columns()), Path("reports/digits"), title="digits")
"""

from pathlib import Path

from bench.record.results import Results
from bench.report import render_html, render_markdown
from bench.report.blocks import Block, Picture
from bench.report.sections import SECTIONS, WITHOUT_RUNS
from bench.report.sections.memory import memory_table
from bench.report.style import theme
from bench.report.summary import terminal_table

__all__ = ["memory_table", "terminal_table", "write"]


def drawn(block: Block) -> Block:
    """The block; a picture as its files, without the many parts of its figure."""
    if isinstance(block, Picture):
        _ = block.svg, block.png
        block.drawing.clear()
    return block


def write(results: Results, out: Path, *, title: str, watched: render_html.Watched | None = None) -> Path:
    """Write `report.md`, `index.html`, `tables/*.csv` and `figures/*` under `out`; return the path of `report.md`.

    watched: the page tells that it is written anew while a sweep runs, and reloads itself.

    Raises: StoreError where a record is corrupt (unless results are lenient) or `out` cannot be written.
    """
    with theme():
        sections = WITHOUT_RUNS if results.probed.empty else SECTIONS
        blocks = [drawn(block) for section in sections for block in section(results)]
        page = render_markdown.write(blocks, out, title=title)
        render_html.write(blocks, out, title=title, watched=watched)
        return page
