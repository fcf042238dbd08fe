"""Tables of instruments from outside: a section with pictures, as declared or of each number."""

from pathlib import Path

import pandas as pd
import pytest

from bench.catalog.catalog import Catalog
from bench.record.schema import KEY
from bench.report import write
from bench.report.blocks import Block, Data, Heading, Picture
from bench.report.sections import further
from tests.bench.report.made import Made, frame, run

RUNS = [run(m, seed=s) for m in ("backprop", "noprop-dt") for s in range(2)]
NORMS = """
from bench import Chart, EdgeProbe, register

@register
class Norms(EdgeProbe):
    \"\"\"How long the weights are.\"\"\"
    name = "norms"
    fields = ("layer", "norm", "spare")
    charts = (Chart("norm", panels="layer", title="norm of weights", caption="Norms by layer.", log=True),
              Chart("nothing of that name"))
    def look(self, twin, task, seeds, batch, progress):
        return [{"layer": "first", "norm": 1.0, "spare": 2.0}]
"""


def norms(layers: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{name: of[name] for name in KEY},
            "epoch": e,
            "step": 9 * e,
            "layer": f"l{k}",
            "norm": 1 + e + s,
            "spare": 2.0,
        }
        for s, of in enumerate(RUNS)
        for e in range(3)
        for k in range(layers)
    )


def blocks(table: pd.DataFrame, tmp_path: Path | None = None, name: str = "norms") -> list[Block]:
    results = Made(frame(RUNS), own={name: table})
    if tmp_path is not None:
        (tmp_path / "norms.py").write_text(NORMS)
        results.catalog = Catalog([tmp_path / "norms.py"])
    return list(further.section(results))


def test_a_declared_chart_makes_a_section_of_its_own(tmp_path: Path) -> None:
    data, heading, picture = blocks(norms(), tmp_path)
    assert isinstance(data, Data)
    assert heading == Heading("How long the weights are")
    assert isinstance(picture, Picture)
    assert picture.caption == "Norms by layer."
    assert [panel.title for panel in picture.panels] == ["digits, l0", "digits, l1"]
    (first, _) = picture.panels
    assert (first.x.title, first.x.whole, first.y.title, first.y.log) == ("epoch", True, "norm of weights", True)
    assert [(of.row[0], of.x, of.y, of.low, of.high) for of in first.series] == [
        ("backprop", [0, 1, 2], [1.5, 2.5, 3.5], [1, 2, 3], [2, 3, 4]),
        ("noprop-dt", [0, 1, 2], [3.5, 4.5, 5.5], [3, 4, 5], [4, 5, 6]),
    ]


def test_without_the_instrument_each_number_is_drawn() -> None:
    pictures = [block for block in blocks(norms(layers=12)) if isinstance(block, Picture)]
    assert [picture.panels[0].y.title for picture in pictures] == ["norm", "spare"]
    assert len(pictures[0].panels) == further.MOST_PANELS
    assert pictures[0].caption == "norm against epoch, means over seeds. The first 9 of 12 by layer."


def test_a_table_of_the_end_is_drawn_against_its_first_number() -> None:
    table = norms().drop(columns=["epoch", "step", "layer"]).rename(columns={"spare": "energy"})
    (picture,) = [block for block in blocks(table) if isinstance(block, Picture)]
    assert (picture.panels[0].x.title, picture.panels[0].y.title) == ("norm", "energy")


@pytest.mark.parametrize("name", ["alignment", "ways"])
def test_what_has_a_section_of_its_own_is_not_drawn_twice(name: str) -> None:
    assert not [block for block in blocks(norms(), name=name) if isinstance(block, Picture)]


def test_tables_without_numbers_or_good_runs_have_no_picture(tmp_path: Path) -> None:
    assert len(blocks(norms()[[*KEY, "layer"]])) == 1
    assert len(blocks(norms().assign(run_id="other"))) == 1
    assert len(blocks(norms().assign(norm="words"), tmp_path)) == 1


def test_the_report_holds_the_pictures(tmp_path: Path) -> None:
    results = Made(frame(RUNS), own={"norms": norms().rename(columns={"norm": "<b>|$norm"})})
    page = write(results, tmp_path / "report", title="t").read_text()
    assert "## norms" in page
    assert (tmp_path / "report" / "figures" / "norms_0.png").is_file()
    assert "<b>" not in page
