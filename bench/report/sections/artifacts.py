"""What trained methods left for pictures: each name a figure, drawn by its type, from the first seed of each row."""

from collections.abc import Iterator

from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.drawing import DRAWN, Shown, cut
from bench.report.style import looks
from bench.report.summary import ordered
from bench.stats import ROW, finished


def section(results: Results) -> Iterator[Block]:
    names: set[str] = set()
    for (name, kind), shown in shown_artifacts(results).items():
        own = name if name not in names else f"{name}-{kind}"  # two methods may give one name to two kinds
        names.add(name)
        yield Picture(own, shown[0].artifact.caption + max(cut(of.artifact) for of in shown), DRAWN[kind](shown))


def shown_artifacts(results: Results) -> dict[tuple[str, str], list[Shown]]:
    """By name and kind: what each row of the tables left, of its first seed that ended well and left it."""
    left, runs = results.artifacts, ordered(results.runs)
    look, figures = looks(runs), dict[tuple[str, str], dict[tuple[str, ...], Shown]]()
    for *row, run_id in finished(runs)[[*ROW, "run_id"]].to_numpy(dtype=str).tolist():
        dataset, method, net, variant = row
        for artifact in left.get(run_id, ()):
            shown = Shown(dataset, look[method, net, variant], artifact)
            figures.setdefault((artifact.name, artifact.kind), {}).setdefault(tuple(row), shown)
    return {key: list(rows.values()) for key, rows in figures.items()}
