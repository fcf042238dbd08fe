"""The report over results: sections, each a file, rendered to a Markdown page with its tables and figures.

write(Results(Path("results/digits"), columns=Catalog().columns()), Path("reports/digits"), title="digits")
"""

from itertools import chain
from pathlib import Path

from bench.record.results import Results
from bench.report import render_markdown
from bench.report.sections import SECTIONS
from bench.report.sections.memory import memory_table
from bench.report.style import theme
from bench.report.summary import terminal_table

__all__ = ["memory_table", "terminal_table", "write"]


def write(results: Results, out: Path, *, title: str) -> Path:
    """Write `report.md`, `tables/*.csv` and `figures/*.png` under `out` and return the path of the page.

    Raises: StoreError where a record is corrupt or `out` cannot be written.
    """
    with theme():
        return render_markdown.write(chain.from_iterable(section(results) for section in SECTIONS), out, title=title)
