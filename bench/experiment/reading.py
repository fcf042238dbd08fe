"""Experiments as they lie on disk: presets and YAML files, read and not yet checked. Without pydantic, for lists."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.api.errors import ConfigError, unknown
from bench.experiment import strict_yaml


def preset_names() -> list[str]:
    return sorted(
        p.name.removesuffix(".yaml") for p in files("bench.experiment.presets").iterdir() if p.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(unknown("preset", name, preset_names()))
    return _parse(
        files("bench.experiment.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}"
    )


def load_yaml(path: Path) -> dict[str, Any]:
    """Raises: ConfigError for a file that cannot be read, or is no mapping in YAML."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"--config {path} cannot be read: it is not a regular file")
        with path.open(encoding="utf-8") as file:
            text = file.read(strict_yaml.LONGEST + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return _parse(text, str(path))


def _parse(text: str, place: str) -> dict[str, Any]:
    try:
        value = strict_yaml.parse(text)
    except ValueError as error:
        raise ConfigError(f"{place} is not valid YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place} must hold 'key: value' pairs at its top level")
    return value
