"""From presets, files and flags to one validated experiment, or one clear line."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from bench.api.errors import ConfigError
from bench.experiment.config import (
    Experiment,
    parse_seeds,
    resolve,
)
from bench.experiment.reading import load_preset, preset_names
from bench.experiment.validation import describe_settings, validate_settings


def test_every_preset_is_valid() -> None:
    assert {"default", "mnist-short"} <= set(preset_names())
    for name in preset_names():
        Experiment.model_validate(load_preset(name))


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("0,1,7", [0, 1, 7]), ("5,", [5]), (2, [0, 1])])
def test_seeds_are_a_count_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


def test_flags_override_the_file_and_the_file_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 7\nseeds: [4]\nsettings:\n  backprop: {lr: 1e-2, weight_decay: 0}\n")
    asked = resolve("default", file, {"epochs": 9, "methods": "backprop"}, ["backprop.lr=0.5"])
    assert (asked.epochs, asked.seeds, asked.methods, asked.datasets) == (9, [4], ["backprop"], ["digits"])
    assert asked.settings["backprop"] == {"lr": 0.5, "weight_decay": 0}


@pytest.mark.parametrize(
    ("text", "value"), [("2,5, 1e-1", [2, 5, 0.1]), ("loop,stacked", ["loop", "stacked"]), ("[2, 5]", [2, 5]), ("2", 2)]
)
def test_commas_part_values_to_be_swept(text: str, value: object) -> None:
    assert resolve("default", None, {}, [f"denoiser.T={text}"]).settings["denoiser"]["T"] == value


def test_a_config_stands_alone_without_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: [backprop]\n")
    assert resolve(None, file, {}, []).epochs == Experiment(methods=["x"]).epochs


def test_flags_alone_mean_what_the_same_words_mean_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: [noprop-dt, backprop]\nseeds: 2\n")
    by_flags = resolve(None, None, {"methods": "noprop-dt,backprop", "seeds": "2"}, [])
    assert by_flags.model_dump() == resolve(None, file, {}, []).model_dump()
    assert by_flags.settings == {}
    assert (by_flags.basis, resolve(None, file, {}, []).basis) == ("no preset", str(file))


def test_without_methods_the_preset_default_is_run() -> None:
    asked = resolve(None, None, {"seeds": "1"}, [])
    assert asked.basis == "preset default"
    assert asked.model_dump() == resolve("default", None, {"seeds": "1"}, []).model_dump()


@pytest.mark.parametrize(
    ("content", "flags", "assignments", "complaint"),
    [
        ("methods: [a]\nepocs: 3", {}, [], r"mine\.yaml: unknown key 'epocs'; did you mean epochs"),
        ("methods: [a]\nepochs: many", {}, [], r"mine\.yaml: epochs='many' is refused"),
        (
            "methods: [a]",
            {"epochs": 0},
            [],
            "--epochs: epochs=0 is refused: input should be greater than or equal to 1",
        ),
        ("methods: [a]", {"seeds": "one"}, [], "--seeds: seeds='one' is refused: write how many"),
        (
            "methods: [a]",
            {"seeds": "0"},
            [],
            r"--seeds: seeds='0' is refused: write how many, from 1 \(3\) to 10,000, or which",
        ),
        ("methods: [a]", {"seeds": ","}, [], "--seeds: seeds=',' is refused: write how many"),
        ("methods: [a]", {"experiment": "../up"}, [], "--experiment: experiment='../up' is refused"),
        ("methods: [a]", {"device": "tpu"}, [], "--device"),
        ("methods: [a]", {}, ["lr=1"], r"--set 'lr=1': write it as method\.key=value"),
        ("epochs: 3", {}, [], "'methods' is missing"),
        ("methods: [a]\n  x: : y", {}, [], "is not valid YAML"),
        ("- a\n- b", {}, [], "must hold 'key: value' pairs"),
    ],
)
def test_bad_input_is_one_line_with_its_place(
    tmp_path: Path, content: str, flags: dict[str, object], assignments: list[str], complaint: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=complaint) as error:
        resolve(None, file, flags, assignments)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_and_an_unreadable_file() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'defualt'; did you mean default"):
        resolve("defualt", None, {}, [])
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        resolve(None, Path("nowhere.yaml"), {}, [])


class Toy(BaseModel):
    lr: Annotated[float, Field(gt=0, le=1, description="step size", json_schema_extra={"search": ("log", 1e-4, 1)})] = (
        0.1
    )


def test_settings_are_completed_and_checked() -> None:
    assert validate_settings(Toy, {}, "toy") == {"lr": 0.1}
    with pytest.raises(ConfigError, match="unknown setting of toy 'lrr'; did you mean lr"):
        validate_settings(Toy, {"lrr": 1}, "toy")
    with pytest.raises(ConfigError, match="settings of toy: lr=2 is refused: input should be less than or equal to 1"):
        validate_settings(Toy, {"lr": 2}, "toy")


def test_settings_are_described_with_bounds_and_search() -> None:
    assert describe_settings(Toy) == [["lr", "0.1", "> 0, <= 1", "log 0.0001 1", "step size"]]
