"""Settings found by search: the user's own in tuned/METHOD.yaml, shipped ones in MODULE.tuned.yaml beside the method.

An entry is for one method on one net and data set, with the method's other settings as they were in the search. The
user's folder is `tuned` in the working folder, beside `results` and `reports`, or $BENCH_TUNED. Its entries replace
shipped ones of the same row. The folder of an installed method is never written to, unless its maintainer asks.
"""

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from bench.api.errors import ConfigError
from bench.catalog.entry import Entry
from bench.experiment import strict_yaml
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Run
from bench.experiment.validation import validate_settings
from bench.record.files import atomic_write, local
from bench.record.locks import locked, try_lock
from bench.record.searches import VERDICTS, Found, Provenance
from bench.search.search import label, with_settings

HEAD = "# Settings found by search. Written by `bench tune --save`, used by `bench run --tuned`.\n"
FOLDER = "BENCH_TUNED"  # the environment variable that names the user's folder
_LIST = TypeAdapter(list[Provenance])


def beside(method: Entry) -> Path:
    """The file that ships with a method."""
    return method.file.with_suffix(".tuned.yaml")


def own(method: Entry) -> Path:
    """The user's file for a method. Raises: StoreError where $BENCH_TUNED is a URL."""
    return local(os.environ.get(FOLDER) or "tuned", f"${FOLDER}") / f"{method.name}.yaml"


def files_for(methods: Iterable[Entry], *, ship: bool = False) -> dict[str, Path]:
    """By method: the file that `save` writes; ship: the one beside the method. Makes the folders that are missing.

    Raises: StoreError where a folder cannot be written.
    """
    files = {method.name: beside(method) if ship else own(method) for method in methods}
    for folder in {path.parent for path in files.values()}:
        try_lock(folder)
    return files


def save(found: Iterable[Found], files: Mapping[str, Path]) -> Iterator[str]:
    """Keep what was solved, each in place of what an earlier search found for the same row; a line on each.

    files: by method. Raises: StoreError where a folder cannot be written, ConfigError where a file there is corrupt.
    """
    for row in found:
        place = f"{_place(row)}{_aside(row.variant)}"
        if row.verdict != "solved":
            yield f"not saved: {place}: {VERDICTS[row.verdict]}"
            continue
        path = files[row.method]
        entry = Provenance.model_validate(row.model_dump(include=set(Provenance.model_fields)))
        with locked(path.with_name(f".{path.name}.lock")):
            kept = [other for other in load(path) if _row(other) != _row(entry)]
            lines = [one.model_dump(mode="json") for one in [*kept, entry]]
            atomic_write(path, (HEAD + strict_yaml.dump(lines)).encode())
        yield f"saved: {place}: {_values(entry)} in {path}"


def load(path: Path) -> list[Provenance]:
    """The entries of a file, or none where there is none. Raises: ConfigError naming a corrupt one."""
    if not path.exists():
        return []
    if not path.is_file():
        raise ConfigError(f"{path} is no regular file; mend or remove it")
    try:
        return _LIST.validate_python(strict_yaml.parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ConfigError(f"{path} is corrupt ({why}); mend or remove it") from error


def applied(runs: Sequence[Run]) -> list[Run]:
    """The runs with the settings that were saved for them; as they are where there are none."""
    found = [(run, lookup(run)) for run in runs]
    return [with_settings(run, _checked(run, saved)) if saved else run for run, saved in found]


def _checked(run: Run, saved: "Saved") -> dict[str, Any]:
    """The saved settings, held to what flags are held to. Raises: ConfigError naming the file."""
    best = saved.entry.best or {}
    owner = f"{run.spec.method} in {saved.file}"
    complete = validate_settings(run.method.load().Config, {**run.spec.method_settings, **best}, owner)
    return {name: complete[name] for name in best}


def told(runs: Sequence[Run]) -> list[str]:
    """A line for each row: what is used, where it was searched otherwise, or that there is none."""
    found = [(run, lookup(run)) for run in runs]
    chosen = {name for _, saved in found for name in (saved and saved.entry.best) or ()}
    lines = []
    for run, saved in found:
        peers = [_others(other, chosen) for other in runs if _place(other.spec) == _place(run.spec)]
        variant = label(_others(run, chosen), peers)
        what = _provenance(run, saved) if saved else "no settings saved, those given are kept"
        lines.append(f"{_place(run.spec)}{_aside(variant)}: {what}")
    return list(dict.fromkeys(lines))


class Saved(NamedTuple):
    """An entry and the file that it is in."""

    entry: Provenance
    file: Path


def lookup(run: Run) -> Saved | None:
    """What was saved for the run's method with its other settings, net and data set.

    Of several, for other settings of the net say, the one that was searched most alike; of those the user's, the last.
    """
    mine = [Saved(entry, own(run.method)) for entry in load(own(run.method))]
    replaced = [_row(saved.entry) for saved in mine]
    shipped = [Saved(entry, beside(run.method)) for entry in load(beside(run.method)) if _row(entry) not in replaced]
    fitting = [saved for saved in [*shipped, *mine] if saved.entry.best and _fits(run, saved.entry)]
    return max(reversed(fitting), key=lambda saved: -len(_differing(run, saved.entry)), default=None)


def _fits(run: Run, entry: Provenance) -> bool:
    spec = run.spec
    own = (spec.method, spec.net, spec.dataset, _others(run, entry.best or ()))
    return (entry.method, entry.net, entry.dataset, entry.fixed) == own


def _others(run: Run, chosen: Container[str]) -> dict[str, Any]:
    """The method's settings but for those that were chosen by search."""
    return {name: value for name, value in run.spec.method_settings.items() if name not in chosen}


def _differing(run: Run, entry: Provenance) -> list[str]:
    """In what the run differs from those that the search was for."""
    spec = run.spec
    pairs = {
        "net settings": (entry.net_settings, spec.net_settings),
        "epochs": (entry.epochs, spec.epochs),
        "batch size": (entry.batch_size, spec.batch_size),
        "source": (entry.source, f"{spec.method_source}-{spec.net_source}"),
    }
    return [name for name, (then, now) in pairs.items() if then != now]


def _provenance(run: Run, saved: Saved) -> str:
    entry = saved.entry
    differing = _differing(run, entry)
    other = f"; other {', '.join(differing)} then" if differing else ""
    source = "shipped" if saved.file == beside(run.method) else str(saved.file)
    found = f"{_values(entry)}, the best of {entry.n_trials} trials of {entry.epochs} epochs ({source}, {entry.date})"
    return f"{found}{other}"


def _place(spec: RunSpec | Provenance) -> str:
    return f"{spec.method} on {spec.net}, {spec.dataset}"


def _values(entry: Provenance) -> str:
    return ", ".join(f"{name}={value}" for name, value in (entry.best or {}).items())


def _aside(variant: str) -> str:
    return f" ({variant})" if variant else ""


def _row(entry: Provenance) -> tuple[object, ...]:
    return entry.method, entry.net, entry.net_settings, entry.dataset, entry.fixed
