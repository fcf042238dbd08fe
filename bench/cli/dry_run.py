"""`bench run --dry-run`: the runs, row by row, and how long they will take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.display.printing import note, table

if TYPE_CHECKING:
    from bench.executors.executor import Options
    from bench.experiment.config import Experiment
    from bench.experiment.plan import Run

HEADS = ["data set", "method", "net", "settings", "budget", "runs", "done", "s each", "s to go"]


def show(asked: "Experiment", runs: "Sequence[Run]", options: "Options") -> None:
    """A line for each row of the tables, timed by a few steps of its first run. Nothing is written."""
    from bench.executors.attempt import is_due
    from bench.experiment import budget
    from bench.record.folder import RunFolder
    from bench.search.search import label

    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.spec.model_copy(update={"seed": 0}).run_id, []).append(run)
    settings = {key: {**some[0].spec.net_settings, **some[0].spec.method_settings} for key, some in rows.items()}
    lines, to_go, search_s = [], 0.0, 0.0
    for key, some in rows.items():
        spec = some[0].spec
        ended = [RunFolder(options.root, options.experiment, run.spec.run_id).summary() for run in some]
        done = sum(of is not None and not is_due(of, options.terms) for of in ended)
        each, why = _timed(some[0], options)
        peers = [of for other, of in settings.items() if rows[other][0].spec.method == spec.method]
        left = (len(some) - done) * (each or 0.0)
        to_go += left
        search_s += _search_s(asked, some[0], each or 0.0)
        times = [_seconds(each) or why, _seconds(left)]
        what = [spec.dataset, spec.method, spec.net, label(settings[key], peers), budget.words(spec.model_dump())]
        lines.append([*what, str(len(some)), str(done), *times])
    kept = [k for k in range(len(HEADS)) if any(line[k] for line in lines)]
    table([HEADS[k] for k in kept], [[line[k] or "-" for k in kept] for line in lines])
    apart = f" after a search of {_seconds(search_s)} s" if search_s else ""
    note(_in_force(asked, [some[0] for some in rows.values()]))
    note(
        f"{len(runs)} runs, {_seconds(to_go)} s to go{apart}, one at a time; "
        "timed by a few steps and a prediction each, set-up left out"
    )


def _in_force(asked: "Experiment", runs: "Sequence[Run]") -> str:
    """What the runs were laid on, the experiment's own settings, and those of methods and nets that are no defaults."""
    from bench.experiment.identity import Compute

    own = {name: getattr(asked, name) for name in Compute.model_fields}
    told = [
        f"{name} {' '.join(value) if isinstance(value, tuple) else value}"
        for name, value in own.items()
        if value not in ((), False, "")
    ]
    changed: dict[str, set[str]] = {}
    for run in runs:
        parts, spec = run.load(), run.spec
        for owner, model, values in (
            (spec.method, parts.method.Config, spec.method_settings),
            (spec.net, parts.net.Settings, spec.net_settings),
        ):
            usual = model().model_dump(mode="json")
            changed.setdefault(owner, set()).update(
                f"{owner}.{key}={value}" for key, value in values.items() if value != usual.get(key)
            )
    differing = [text for texts in changed.values() for text in sorted(texts)]
    else_ = f"; not as `bench show` says: {', '.join(differing)}" if differing else ""
    return f"in force: {asked.basis}, {', '.join(told)}; settings of methods and nets: their defaults{else_}"


def _timed(run: "Run", options: "Options") -> tuple[float | None, str]:
    """Seconds that a run takes, or why that is not known."""
    import torch

    from bench.runner import rehearse
    from bench.runner.state import Place

    torch.set_num_threads(run.spec.threads)
    try:
        found = rehearse.seconds(run.spec, run.load(), Place(torch.device(options.device), options.data_dir))
        return (None, f"skipped: {found}") if isinstance(found, str) else (found, "")
    except Exception as error:  # a method may raise anything; its run will have a row that says so
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _search_s(asked: "Experiment", run: "Run", each: float) -> float:
    """Of the trials of a row, where ranges are not widened."""
    if asked.tune is None:
        return 0.0
    from bench.search.search import trial_epochs

    return asked.tune.trials * each * trial_epochs(run, asked.tune) / run.spec.epochs


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
