"""Experiments as they lie on disk: presets and YAML files, read and not yet checked. Without pydantic, for lists."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from bench.api.errors import ConfigError, unknown


def preset_names() -> list[str]:
    return sorted(
        p.name.removesuffix(".yaml") for p in files("bench.spec.presets").iterdir() if p.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(unknown("preset", name, preset_names()))
    return _parse(files("bench.spec.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}")


def load_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return _parse(text, str(path))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """A setting's value as YAML reads it: numbers, true/false, words."""
    return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)


def _parse(text: str, place: str) -> dict[str, Any]:
    try:
        value = parse_value(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must hold 'key: value' pairs at its top level")
    return {str(k): v for k, v in value.items()}
