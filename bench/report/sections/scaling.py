"""Training spread over workers: throughput against their number beside the ideal, waiting, and bytes.

What was simulated says so in every line and in the picture, where its line is dashed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bench.record.results import Results
from bench.record.scaling import WAYS, Point
from bench.report.blocks import Axis, Block, Data, Heading, Panel, Series, Table, Text
from bench.report.charts import picture
from bench.report.style import Key, looks
from bench.report.text import markdown as escape

CAPTION = (
    "Training over worker processes. Dotted: as many times the examples per second of one worker as there are workers. "
    "Solid: measured, each worker on a core of its own. Dashed: simulated, from what one worker computes and what a "
    "link carries."
)
NOTE = (
    "*blocks*: each worker trains blocks of its own on every batch; *data parallel*: each has the whole net and a part "
    "of the batch; *pipeline*: each has consecutive blocks, through which micro-batches flow (GPipe). The batch is the "
    "same however many workers there are. *Modelled*: what the model that simulates says of the same point, to be held "
    "against what was measured; it knows nothing of memory that workers on one machine share. *Idle*: the part of the "
    "time in which a worker waits, mean over workers. *Sent*: payload of all workers in a step. *Others*: the part of "
    "the time in which a worker's core was with another process; where it is large, measure again."
)
SHORT = ("row", "n", "examples/s", "by", "model", "x 1", "idle %", "MB/step")
SAME = "same weights as one process"
LONG = (
    *("data set", "row", "workers", "examples/s", "", "modelled", "x one worker", "ideal, %", "idle, %"),
    *("sent, MB/step", SAME, "others, %"),
)
KINDS = (("measured", "-"), ("simulated", "--"))


def section(results: Results) -> Iterator[Block]:
    points = newest(results.scaling)
    if not points:
        return
    frame = frame_of(points)
    yield Heading("Scaling")
    yield Data("scaling", frame)
    yield Text(NOTE)
    yield _table(frame)
    for point in points:
        if point.status != "ok":
            yield Text(escape(f"{point.method}, {WAYS[point.way]}, {point.workers} workers: {point.reason}"))
    ok = frame[frame["status"] == "ok"]
    for dataset, here in ok.groupby("dataset"):
        yield from picture(f"scaling_{dataset}".replace(":", "-").replace("/", "-"), CAPTION, panels(here), looks(here))


def newest(points: Sequence[Point]) -> list[Point]:
    """One point for a place: what ended well before what did not, what was measured before what was not, then by date.

    Points of rows go by what they are of, those of one row by the number of workers.
    """
    found: dict[tuple[Row, int], Point] = {}
    for point in sorted(points, key=lambda p: (p.status == "ok", p.kind == "measured", p.date)):
        found[_row(point), point.workers] = point
    order = list(WAYS)
    return sorted(found.values(), key=lambda p: (p.dataset, p.net, order.index(p.way), p.method, _row(p), p.workers))


def frame_of(points: Sequence[Point]) -> pd.DataFrame:
    """A line for each point, unrounded."""
    variants = _variants(points)
    one = {_row(p): p.images_per_s for p in points if p.workers == 1 and p.status == "ok"}
    lines = []
    for point in points:
        base, rate = one.get(_row(point)), point.images_per_s
        lines.append({
            "dataset": point.dataset, "net": point.net, "method": point.method, "variant": variants[_row(point)],
            "way": point.way, "workers": point.workers, "kind": point.kind, "status": point.status,
            "images_per_s": rate, "modelled_images_per_s": point.modelled_images_per_s,
            "ideal_images_per_s": None if base is None else base * point.workers,
            "speed_up": None if base is None or rate is None else rate / base,
            "idle": sum(point.idle) / len(point.idle) if point.idle else None,
            "least_idle": min(point.idle, default=None), "most_idle": max(point.idle, default=None),
            "sent_bytes_per_step": point.sent_bytes, "as_one": point.as_one, "others": point.others,
            "batch_size": point.batch_size, "n_micro": point.n_micro, "crowded": point.crowded,
            "latency_s": (point.link or {}).get("latency_s"), "bytes_per_s": (point.link or {}).get("bytes_per_s"),
            "link": (point.link or {}).get("source"), "date": point.date,
        })  # fmt: skip
    numbers = ["images_per_s", "modelled_images_per_s", "ideal_images_per_s", "speed_up", "idle", "least_idle",
               "most_idle", "sent_bytes_per_step", "others", "latency_s", "bytes_per_s"]  # fmt: skip
    return pd.DataFrame(lines).astype(dict.fromkeys(numbers, float))


def scaling_table(results: Results) -> Table:
    """The points of a study for a terminal, within 80 columns where names are those of the suite."""
    rows = []
    for line in frame_of(newest(results.scaling)).to_dict("records"):
        by = line["kind"] if line["status"] == "ok" else "failed"
        rows.append([
            f"{line['method']} {line['variant']}", str(line["workers"]), _number(line["images_per_s"]), by,
            _number(line["modelled_images_per_s"]), _decimals(line["speed_up"], 2), _decimals(100 * line["idle"], 1),
            _decimals(line["sent_bytes_per_step"] / 1e6, 3),
        ])  # fmt: skip
    return Table(SHORT, rows, frozenset(("row", "by")))


def panels(here: pd.DataFrame) -> list[Panel]:
    """Throughput with its ideal, waiting, and bytes, of one data set."""
    dataset, x = str(here["dataset"].iloc[0]), Axis("workers", whole=True)
    throughput: list[Series] = []
    idle: list[Series] = []
    sent: list[Series] = []
    for key, line in _rows(here):
        throughput.append(_series(key, line, "ideal_images_per_s", 1, ":", "ideal"))
        for kind, dashes in KINDS:
            part = _along(line, kind)
            if part.empty:
                continue
            throughput.append(_series(key, part, "images_per_s", 1, dashes, kind))
            idle.append(_series(key, part, "idle", 100, dashes, kind))
            sent.append(_series(key, part, "sent_bytes_per_step", 1e-6, dashes, kind))
    return [
        Panel(f"{dataset}: throughput", x, Axis("examples/s"), throughput, dataset),
        Panel(f"{dataset}: waiting", x, Axis("idle, % of a worker's time"), idle, dataset),
        Panel(f"{dataset}: messages", x, Axis("sent by all workers, MB a step"), sent, dataset),
    ]


def _rows(here: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    for (method, net, variant), line in here.groupby(["method", "net", "variant"], sort=False):
        yield (str(method), str(net), str(variant)), line.sort_values("workers")


def _along(line: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The points of a kind; those that were simulated begin where the last measured one is."""
    part = line[line["kind"] == kind]
    if kind == "simulated" and len(part):
        before = line[(line["kind"] == "measured") & (line["workers"] < part["workers"].min())]
        part = pd.concat([before.tail(1), part])
    return part


def _series(key: Key, line: pd.DataFrame, name: str, scale: float, dashes: str, note: str) -> Series:
    known = line.dropna(subset=[name])
    return Series(key, "line", known["workers"].tolist(), (scale * known[name]).tolist(), dashes=dashes, note=note)


def _table(frame: pd.DataFrame) -> Table:
    rows = []
    for line in frame.to_dict("records"):
        kind = line["kind"] + (", more workers than cores" if line["crowded"] else "")
        rows.append([
            line["dataset"], f"{line['method']} {line['variant']}", str(line["workers"]), _number(line["images_per_s"]),
            kind if line["status"] == "ok" else "failed", _number(line["modelled_images_per_s"]),
            _decimals(line["speed_up"], 2), _decimals(100 * line["images_per_s"] / line["ideal_images_per_s"], 0),
            _decimals(100 * line["idle"], 1), _decimals(line["sent_bytes_per_step"] / 1e6, 3),
            {True: "yes", False: "no"}.get(line["as_one"], "-"), _decimals(100 * line["others"], 0),
        ])  # fmt: skip
    return Table(LONG, rows, frozenset(("data set", "row", "", SAME)))


class Row(NamedTuple):
    """What a line of the picture is of; rows are sorted by it."""

    dataset: str
    net: str
    method: str
    way: str
    batch_size: str
    n_micro: str
    device: str
    settings: tuple[str, ...]  # as name=value, those of the method first


def _row(point: Point) -> Row:
    settings = [*sorted(point.settings.items()), *sorted(point.net_settings.items())]
    return Row(
        point.dataset,
        point.net,
        point.method,
        point.way,
        str(point.batch_size),
        str(point.n_micro),
        point.device,
        tuple(f"{name}={value}" for name, value in settings),
    )


def _variants(points: Sequence[Point]) -> Mapping[Row, str]:
    """The way of each row, and the settings in which it differs from others of its method and way."""
    names = {}
    for point in points:
        peers = {_row(p) for p in points if (p.method, p.way) == (point.method, point.way)}
        common = set.intersection(*(set(row.settings) for row in peers))
        apart = [setting for setting in _row(point).settings if setting not in common]
        if len({row.batch_size for row in peers}) > 1:
            apart.append(f"batch_size={point.batch_size}")
        if len({row.n_micro for row in peers}) > 1 and point.way == "pipeline":
            apart.append(f"n_micro={point.n_micro}")
        names[_row(point)] = ", ".join([WAYS[point.way], *apart])
    return names


def _number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _decimals(value: float, places: int) -> str:
    return "-" if value != value else f"{value:.{places}f}"
