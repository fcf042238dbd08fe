"""Shared networks as ordered blocks: the catalogue and the one way to build one."""

import ast
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, unknown

if TYPE_CHECKING:
    import torch

    from bench.nets.base import Net

NETS = {
    "cnn": "bench.nets.cnn:CNN",
    "denoiser": "bench.nets.denoiser:Denoiser",
    "denoiser-ct": "bench.nets.denoiser_ct:DenoiserCT",
    "localmixer": "bench.nets.localmixer:LocalMixer",
    "mlp": "bench.nets.mlp:MLP",
}


def net_class(name: str) -> "type[Net]":
    """The class behind a net's name. Raises: ConfigError for an unknown one."""
    if name not in NETS:
        raise ConfigError(unknown("net", name, NETS))
    module, attribute = NETS[name].split(":")
    cls: type[Net] = getattr(import_module(module), attribute)
    return cls


def build_net(
    name: str,
    image_shape: tuple[int, int, int],
    n_classes: int,
    settings: Mapping[str, Any],
    init: "torch.Generator",
) -> "Net":
    """A net on the CPU whose weights depend on `init`, the name and the settings alone."""
    import torch

    cls = net_class(name)
    # torch's layers draw from the global generator: lend it a seed of ours, then give it back as it was
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=init)))
        return cls(image_shape, n_classes, cls.Settings(**settings))


def summary(name: str) -> str:
    """The first line of a net's page, read without importing it."""
    from importlib.util import find_spec

    spec = find_spec(NETS[name].split(":")[0])
    assert spec is not None
    assert spec.origin is not None
    page = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return page.partition("\n")[0]
