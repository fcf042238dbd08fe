"""Settings found by search, in a YAML file beside the method that they are of: MODULE.tuned.yaml.

An entry is for one method on one net and data set, with the method's other settings as they were in the search.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.api.errors import ConfigError
from bench.catalog.entry import Entry
from bench.record.files import atomic_write
from bench.record.locks import locked
from bench.record.searches import VERDICTS, Found, Provenance
from bench.search.search import label, with_settings
from bench.spec import strict_yaml
from bench.spec.identity import RunSpec
from bench.spec.plan import Run
from bench.spec.validation import validate_settings

HEAD = "# Settings found by search. Written by `bench tune --save`, used by `bench run --tuned`.\n"
_LIST = TypeAdapter(list[Provenance])


def beside(method: Entry) -> Path:
    return method.file.with_suffix(".tuned.yaml")


def save(found: Iterable[Found], methods: dict[str, Entry]) -> Iterator[str]:
    """Keep what was solved, each in place of what an earlier search found for the same row; a line on each.

    Raises: StoreError where a folder cannot be written, ConfigError where a file there is corrupt.
    """
    for row in found:
        place = f"{_place(row)}{_aside(row.variant)}"
        if row.verdict != "solved":
            yield f"not saved: {place}: {VERDICTS[row.verdict]}"
            continue
        path = beside(methods[row.method])
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
    found = ((run, lookup(run)) for run in runs)
    return [with_settings(run, _checked(run, entry.best)) if entry and entry.best else run for run, entry in found]


def _checked(run: Run, best: Mapping[str, Any]) -> dict[str, Any]:
    """The saved settings, held to what flags are held to. Raises: ConfigError naming the file."""
    owner = f"{run.spec.method} in {beside(run.method)}"
    complete = validate_settings(run.method.load().Config, {**run.spec.method_settings, **best}, owner)
    return {name: complete[name] for name in best}


def told(runs: Sequence[Run]) -> list[str]:
    """A line for each row: what is used, where it was searched otherwise, or that there is none."""
    found = [(run, lookup(run)) for run in runs]
    chosen = {name for _, entry in found for name in (entry and entry.best) or ()}
    lines = []
    for run, entry in found:
        peers = [_others(other, chosen) for other in runs if _place(other.spec) == _place(run.spec)]
        variant = label(_others(run, chosen), peers)
        what = _provenance(run, entry) if entry else "no settings saved, those given are kept"
        lines.append(f"{_place(run.spec)}{_aside(variant)}: {what}")
    return list(dict.fromkeys(lines))


def lookup(run: Run) -> Provenance | None:
    """What was saved for the run's method with its other settings, net and data set.

    Of several, for other settings of the net say, the one that was searched most alike; of those the last.
    """
    entries = [entry for entry in load(beside(run.method)) if entry.best and _fits(run, entry)]
    return max(reversed(entries), key=lambda entry: -len(_differing(run, entry)), default=None)


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


def _provenance(run: Run, entry: Provenance) -> str:
    differing = _differing(run, entry)
    other = f"; other {', '.join(differing)} then" if differing else ""
    return f"{_values(entry)}, the best of {entry.n_trials} trials of {entry.epochs} epochs ({entry.date}){other}"


def _place(spec: RunSpec | Provenance) -> str:
    return f"{spec.method} on {spec.net}, {spec.dataset}"


def _values(entry: Provenance) -> str:
    return ", ".join(f"{name}={value}" for name, value in (entry.best or {}).items())


def _aside(variant: str) -> str:
    return f" ({variant})" if variant else ""


def _row(entry: Provenance) -> tuple[object, ...]:
    return entry.method, entry.net, entry.net_settings, entry.dataset, entry.fixed
