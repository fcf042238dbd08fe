"""Blocks as one page that stands by itself: index.html, with its data, styles and scripts inside, and nothing fetched.

What is foreign reaches the page escaped by the template, as JSON in an inert element, or as text set by the script; the
page's own policy (Content-Security-Policy) runs no script but these and lets nothing be fetched.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.api.errors import StoreError
from bench.catalog.catalog import reference
from bench.record.files import atomic_write, cause, read_regular
from bench.report.blocks import (
    Block,
    Board,
    Cards,
    Code,
    Data,
    Facts,
    Heading,
    InPlace,
    Panel,
    Picture,
    Table,
    Text,
    raised,
)
from bench.report.drawn_data import axis, dash, numbers, polygon, rounded
from bench.report.style import BLACK, Key, Look, family
from bench.report.text import file_name, one_line, printable

ASSETS = files("bench.report").joinpath("html")
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "tables.js", "charts.js", "page.js")
RELOAD = "watch.js"
WATCHED_PART = re.compile("<!-- watched -->.*?<!-- /watched -->\n?", re.S)  # foreign text has no "<" of its own
MOST_PICTURES = 1_200_000  # bytes of pictures within the page; any further ones are named as files beside it
LONG = 60  # characters from which on a text is written once, however many runs have it
SEED = "\x01"  # stands for the seed in a command
PAGE = "index.html"
INK = "var(--ink)"
INLINE = MarkdownIt("commonmark", {"html": False})


@dataclass(frozen=True)
class Watched:
    """That a page is written anew while a sweep runs. at: when it was; words: where the sweep stands."""

    at: str
    words: str
    every_s: float


def still(page: Path) -> None:
    """Let a page that was watched reload itself no more. Raises: StoreError where it cannot be read or written."""
    try:
        html = read_regular(page, None).decode()
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {page}: {cause(error)}") from error
    atomic_write(page, WATCHED_PART.sub("", html).encode(errors="replace"))


def rendered(blocks: Iterable[Block], *, title: str, in_place: InPlace = raised, watched: Watched | None = None) -> str:
    """The page. watched: it tells so, and reloads itself."""
    content = _Content()
    items = [item for block in blocks if (item := content.shown(block, in_place)) is not None]
    scripts = [_asset(name) for name in SCRIPTS]
    reload = _asset(RELOAD) if watched else ""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.j2")).render(
        title=one_line(title),
        items=items,
        contents=[(item["id"], item["text"]) for item in items if item["kind"] == "heading" and item["level"] == 2],
        style=Markup(_asset("page.css")),  # noqa: S704  (our own)
        scripts=[Markup(script) for script in scripts],  # noqa: S704  (our own)
        watched=watched,
        reload=Markup(reload),  # noqa: S704  (our own)
        policy="; ".join(
            [
                "default-src 'none'",
                "img-src data:",
                "style-src 'unsafe-inline'",
                f"script-src {' '.join(map(_hash, [*scripts, *([reload] if watched else [])]))}",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        data=Markup(in_script(content.data)),  # noqa: S704  (made safe)
    )


def in_script(value: Any) -> str:
    """JSON that may stand within a script element: no character that could end or open one is left in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Content:
    """The blocks as the template wants them, and the data that the script draws."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {"looks": [], "rows": [], "charts": [], "cards": None, "texts": []}
        self._looks: dict[tuple[Key, str], int] = {}
        self._texts: dict[str, int] = {}
        self._headings: set[str] = set()
        self._room = MOST_PICTURES

    def shown(self, block: Block, in_place: InPlace) -> dict[str, Any] | None:
        """As `item`; what stands in the block's place if it cannot be rendered."""
        before = {name: list(of) if isinstance(of, list) else of for name, of in self.data.items()}
        try:
            item = self.item(block)
            json.dumps(
                [of[len(before[name]) :] for name, of in self.data.items() if isinstance(of, list)], allow_nan=False
            )
            json.dumps(self.data["cards"] if isinstance(block, Cards) else None, allow_nan=False)
        except Exception as error:  # whatever a record made of this block, the others are shown
            self.data = before
            self._looks = {of: k for of, k in self._looks.items() if k < len(before["looks"])}
            self._texts = {of: k for of, k in self._texts.items() if k < len(before["texts"])}
            return self.item(in_place(block, error))
        return item

    def item(self, block: Block) -> dict[str, Any] | None:
        match block:
            case Heading(text, level):
                return {"kind": "heading", "level": level, "text": one_line(text), "id": self._id(text)}
            case Text(text):
                return {"kind": "text", "text": _inline(text)}
            case Facts(pairs, strong):
                told = [(one_line(name), _inline(value) if strong else one_line(value, 2000)) for name, value in pairs]
                return {"kind": "facts", "pairs": told}
            case Code(name, text):
                return {"kind": "code", "title": one_line(name), "text": printable(text)}
            case Table():
                return {"kind": "table", "table": _table(block)}
            case Board():
                return self._board(block)
            case Cards():
                return self._cards(block)
            case Picture():
                return self._picture(block)
            case Data():
                return None  # a file beside the page

    def _id(self, text: str) -> str:
        wanted = file_name(text).lower()
        free = next(n for n in (wanted, *(f"{wanted}-{k}" for k in range(2, 10_000))) if n not in self._headings)
        self._headings.add(free)
        return free

    def _board(self, block: Board) -> dict[str, Any]:
        rows = []
        for (dataset, key), reach in zip(block.lines, block.reach, strict=True):
            rows.append({"dataset": one_line(dataset), "look": self._look(key, block.look[key]), "reach": reach})
        self.data["rows"] += rows
        values = [[None if v is None else rounded(v, 12) for v in of_row] for of_row in block.values]
        of = {"more": block.more, "better": block.better}
        return {"kind": "board", "table": _table(block.table), "values": values, **of}

    def _cards(self, block: Cards) -> dict[str, Any]:
        at = block.table.headers.index("seed")
        about = []
        for facts, row in zip(block.about, block.table.rows, strict=True):
            told = {name: _told(fact) for name, fact in facts.items()}
            if "command" in told:  # one for all seeds of a row
                told["command"] = told["command"].replace(f" --seeds {row[at]}, ", f" --seeds {SEED}, ")
            about.append({name: self._once(text) for name, text in told.items()})
        lines = [[one_line(dataset), self._look(key, block.look[key])] for dataset, key in block.lines]
        self.data["cards"] = {**_table(block.table), "words": sorted(block.table.words), "lines": lines, "about": about}
        return {"kind": "cards", "n": len(block.lines)}

    def _once(self, text: str) -> str | int:
        """A short text, or the number of one that others may have, too."""
        if len(text) < LONG:
            return text
        if text not in self._texts:
            self._texts[text] = len(self._texts)
            self.data["texts"].append(text)
        return self._texts[text]

    def _picture(self, block: Picture) -> dict[str, Any]:
        caption = one_line(block.caption, 1000)
        if block.panels:
            self.data["charts"].append([self._panel(panel, block.look) for panel in block.panels])
            number = len(self.data["charts"]) - 1
            return {"kind": "chart", "caption": caption, "number": number, "n": len(block.panels)}
        data = base64.b64encode(block.png).decode()
        width, height = block.drawing.get_size_inches()
        tall = height > width
        self._room -= len(data)
        source = f"data:image/png;base64,{data}" if self._room >= 0 else ""
        return {
            "kind": "picture",
            "caption": caption,
            "source": source,
            "file": f"figures/{file_name(block.name)}.png",
            "tall": tall,
        }

    def _panel(self, panel: Panel, look: Mapping[Key, Look]) -> dict[str, Any]:
        series = [
            {
                "look": self._look(of.row, look[of.row]),
                "kind": of.kind,
                **{name: numbers(getattr(of, name)) for name in ("x", "y", "low", "high") if getattr(of, name)},
                **({} if of.dashes is None else {"dash": dash(of.dashes), "note": of.note}),
                **({"labelled": True} if of.labelled else {}),
            }
            for of in panel.series
        ]
        axes = {"x": axis(panel.x), "y": axis(panel.y)}
        return {"title": one_line(panel.title), "dataset": one_line(panel.dataset), **axes, "series": series}

    def _look(self, key: Key, look: Look) -> int:
        """Its number. A row has one look in all figures, but for what some add to its label."""
        label = one_line(look.label.partition("\n")[0] if look.label.endswith("runs ok") else look.label)
        label = one_line(" ".join(filter(None, (key[0], f"({key[1]})" if f"({key[1]})" in label else "", key[2]))))
        if (key, label) not in self._looks:
            self._looks[key, label] = len(self._looks)
            outline, inside = polygon(look.marker, "full"), polygon(look.marker, look.fill)
            self.data["looks"].append(
                {
                    **dict(zip(("method", "net", "variant"), map(one_line, key), strict=True)),
                    "label": label,
                    "family": one_line(family(key[0])),
                    "reference": key[0] == reference(),
                    "colour": INK if look.colour == BLACK else look.colour,
                    "dash": dash(look.dashes),
                    "outline": outline,
                    "inside": outline if look.fill == "full" else inside,
                }
            )
        return self._looks[key, label]


def _inline(text: str) -> Markup:
    return Markup(INLINE.renderInline(text))  # noqa: S704  (html is off)


def _table(table: Table) -> dict[str, Any]:
    rows = [[one_line(cell, 2000) for cell in row] for row in table.rows]
    return {"headers": [one_line(header) for header in table.headers], "rows": rows, "words": table.words}


def _told(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return "\n".join(f"{one_line(k)} = {one_line(_plain(v), 2000)}" for k, v in sorted(fact.items()))
    return printable(str(fact))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _asset(name: str) -> str:
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
