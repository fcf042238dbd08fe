"""A setting is one field: flag, YAML key, Python keyword and the command that repeats a run follow from it."""

import inspect
import random
import shlex
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field

import bench
from bench.api.errors import ConfigError
from bench.cli.flags import takes
from bench.cli.main import app
from bench.cli.verbs import VERBS
from bench.experiment import flag, strict_yaml
from bench.experiment.config import Experiment, Tuning, resolve
from bench.experiment.flag import Flag, Option, options
from bench.experiment.identity import RunSpec
from bench.report.reproduce import SPELT_OUT, command

IN_FILES_ALONE = {"settings": "by --set", "nets": "a table", "variants": "a table", "tune": "by bench tune"}
WORDS = {
    "methods": ["backprop", "noprop-dt", "spsa"],
    "datasets": ["digits", "mnist", "npz:/some where/x.npz"],
    "instruments": ["alignment", "energy", "read-out"],
    "protocols": ["matched", "convergence"],
    "log": ["csv:/some where", "tensorboard"],
    "net": ["auto", "mlp", "cnn"],
    "device": ["auto", "cpu", "cuda", "cuda:3"],
    "experiment": ["default", "a.b-c_1"],
}
VALUES = [
    1,
    -2.5e-7,
    0.1,
    True,
    None,
    "x",
    "1e-3",
    "null",
    "yes",
    "a,b",
    "a: b",
    "'",
    "",
    [1, 2],
    ["p", "q,r"],
    {"k": 1},
]


@cache
def verb(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.get_command(None, name)


def given(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Flags and assignments of a `bench run`, as the command line parses them."""
    params = verb("run").make_context("run", list(words)).params
    return {name: value for name, value in params.items() if name in options(Experiment)}, params["assign"] or []


def parsed(words: list[str]) -> Experiment:
    flags, assigned = given(words)
    return resolve(None, None, flags, assigned)


def drawn(option: Option, draw: random.Random) -> Any:
    """A value of the field, within its bounds."""
    if option.name == "seeds":
        return draw.sample(range(2**32), draw.randint(1, 3))
    if option.choices:
        return draw.choice(option.choices)
    if option.kind is str:
        words = WORDS.get(option.name, ["some-name", "other_name2"])
        several = (option.metavar or "").endswith(",...")
        return draw.sample(words, draw.randint(1, 2)) if several else draw.choice(words)
    if option.kind is bool:
        return draw.random() < 0.5
    bounds: dict[str, float] = {}
    for of in option.field.metadata:
        bounds |= {key: getattr(of, key) for key in ("ge", "gt", "le") if hasattr(of, key)}
    low, high = max(bounds.get("ge", 1e-9), bounds.get("gt", 1e-9)), min(bounds.get("le", 1e6), 1e12)
    value = draw.choice([low, high, low + (high - low) * draw.random() ** 9])
    return max(1, round(value)) if option.kind is int else value


def settings(draw: random.Random) -> dict[str, dict[str, Any]]:
    owners = draw.sample(["mlp", "backprop", "noprop-dt"], draw.randint(0, 2))
    return {owner: {f"key{k}": draw.choice(VALUES) for k in range(draw.randint(1, 3))} for owner in owners}


def experiment(draw: random.Random) -> Experiment:
    values = {name: drawn(option, draw) for name, option in options(Experiment).items() if draw.random() < 0.7}
    values.setdefault("methods", ["backprop"])
    budgets = [name for name in ("steps", "seconds", "flops", "patience") if name in values]
    for name in budgets[1:]:
        del values[name]
    return Experiment(**values, settings=settings(draw))


def test_commands_of_many_experiments_parse_back_to_them() -> None:
    draw = random.Random(0)
    for _ in range(200):
        asked = experiment(draw)
        words = flag.words(Experiment, asked.model_dump()) + flag.assignments(asked.settings)
        assert parsed(shlex.split(shlex.join(words))).model_dump() == asked.model_dump(), shlex.join(words)


def test_commands_of_many_runs_ask_for_the_same_runs() -> None:
    draw = random.Random(1)
    for _ in range(200):
        asked = experiment(draw)
        shared = {name: getattr(asked, name) for name in RunSpec.model_fields if name in Experiment.model_fields}
        of_run = dict(method=asked.methods[0], net="mlp", dataset=asked.datasets[0], seed=asked.seeds[0], eval_draws=5)
        of_run |= dict(method_settings={}, net_settings=asked.settings.get("mlp", {}))
        of_run |= dict(method_source="", net_source="", data_id="", epochs=asked.epochs, tuned=())
        spec = RunSpec(**{**shared, **of_run})
        again = parsed(shlex.split(command(spec.model_dump(mode="json"), asked.seeds))[2:])
        assert (again.methods, again.datasets, again.net) == ([spec.method], [spec.dataset], "mlp")
        assert again.seeds == sorted(asked.seeds)
        assert again.settings.get("mlp", {}) == spec.net_settings
        same = {name: getattr(asked, name) for name in shared if name not in {"net", *SPELT_OUT}}
        if asked.steps is not None:  # epochs follow from them
            same["epochs"] = Experiment.model_fields["epochs"].default
        assert {name: getattr(again, name) for name in same} == same


def test_every_field_is_a_flag_a_key_and_a_keyword() -> None:
    flags = options(Experiment)
    assert set(Experiment.model_fields) - set(flags) == set(IN_FILES_ALONE)
    assert set(flags) <= {parameter.name for parameter in verb("run").params}
    assert set(Experiment.model_fields) <= set(inspect.signature(bench.run).parameters)
    told = inspect.getdoc(bench.run) or ""
    assert all(f"{name}: " in told for name in set(Experiment.model_fields) - {"methods", "datasets", "log"})


def test_every_field_of_a_run_is_in_the_command_that_repeats_it() -> None:
    draw = random.Random(2)
    base = {"method": "spsa", "dataset": "digits", "net": "mlp", "epochs": 3}
    for name in set(options(Experiment)) & set(RunSpec.model_fields) - SPELT_OUT:
        value = True if options(Experiment)[name].kind is bool else drawn(options(Experiment)[name], draw)
        assert flag.spelling(name) in command({**base, name: value}, [0]).split(), name


def test_a_field_more_is_a_flag_a_key_and_part_of_the_command(tmp_path: Path) -> None:
    class More(Experiment):
        warm_rate: Annotated[float | None, Flag("How long")] = Field(None, gt=0, description="rate of the warm-up")

    seen: dict[str, Any] = {}

    @takes(More)
    def go(flags: Any, quiet: bool = False) -> None:
        seen.update(flags)

    one = typer.Typer(add_completion=False)
    one.command()(go)
    words = flag.words(More, {"methods": ["spsa"], "warm_rate": 0.25})
    typer.main.get_command(one)(words, standalone_mode=False)
    assert seen == {"methods": "spsa", "warm_rate": 0.25}
    assert More.model_validate(strict_yaml.parse("methods: [spsa]\nwarm_rate: 0.25")).warm_rate == 0.25


def test_a_search_has_its_fields_as_flags_and_a_wrong_one_is_named() -> None:
    names = {parameter.name for parameter in verb("tune").params}
    assert set(Tuning.model_fields) <= names
    with pytest.raises(ConfigError, match=r"^--trials: tune.trials=1 is refused: .*2$"):
        resolve(None, None, {"methods": "backprop", "tune": {"trials": 1}}, [])


def test_help_is_the_description_in_the_group_of_the_field() -> None:
    shown = {parameter.name: parameter for parameter in verb("run").params}
    for name, option in options(Experiment).items():
        assert shown[name].rich_help_panel == option.flag.group
        assert shown[name].help == option.help
        assert option.help[0].isupper()
        assert option.help.endswith(".")
        assert shown[name].default is None
    assert shown["precision"].metavar == "float32|tf32|bfloat16"
    assert [item.value for item in shown["precision"].shell_complete(None, "b")] == ["bfloat16"]


def test_every_verb_is_loaded_by_its_name_and_has_a_help() -> None:
    assert all(verb(name).name == name and verb(name).help for name in VERBS)
