"""What a search leaves: its rows, with their provenance."""

from collections.abc import Sequence
from datetime import UTC, datetime

from bench.experiment.config import Tuning
from bench.record.primary import ACCURACY
from bench.record.searches import Found
from bench.search.sampler import words
from bench.search.search import Search, label, others, trial_epochs


def found(rows: Sequence[Search], tuning: Tuning) -> list[Found]:
    """Every search with what it tried, for the report and as the provenance of its settings."""
    commit = _commit()
    return [_found(row, rows, tuning, commit) for row in rows]


def _found(row: Search, rows: Sequence[Search], tuning: Tuning, commit: str | None) -> Found:
    spec, best = row.run.spec, row.best
    return Found(
        method=spec.method,
        net=spec.net,
        dataset=spec.dataset,
        fixed=others(row.run, row.declared),
        net_settings=spec.net_settings,
        best=best and best.settings,
        value=best and best.value,
        judged_by=None if row.primary.key == ACCURACY.key else row.primary.column,
        verdict=row.verdict,
        n_trials=len(row.tried),
        epochs=trial_epochs(row.run, tuning),
        reported_epochs=spec.epochs,
        batch_size=spec.batch_size,
        seed=tuning.seed,
        sampler=words(),
        date=row.ended and datetime.fromtimestamp(row.ended, UTC).date().isoformat(),
        commit=commit,
        source=f"{spec.method_source}-{spec.net_source}",
        variant=_variant(row, rows),
        declared={name: part.declaration() for name, part in row.declared.items()},
        searched={name: part.declaration() for name, part in row.space.items()},
        at_chance=row.at_chance,
        tried=row.tried,
    )


def _variant(row: Search, rows: Sequence[Search]) -> str:
    """What sets a search apart from others of its method."""
    return label(_settings(row), (_settings(other) for other in rows if other.key[:3] == row.key[:3]))


def _settings(row: Search) -> dict[str, object]:
    return {**row.run.spec.net_settings, **others(row.run, row.declared)}


def _commit() -> str | None:
    """That of the suite, marked where its files differ from it."""
    import torch

    from bench.measure.environment import environment

    facts = environment(torch.device("cpu"), threads=1)
    if facts["git_commit"] is None:
        return None
    return f"{facts['git_commit']}{'-dirty' if facts['git_dirty'] else ''}"
