"""The contracts of nets and data sets, which `bench check` holds them against."""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench import data
from bench.api.dataset import DataSet
from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.testing.finding import ContractViolation, Result, complaint, require
from bench.testing.subject import digits, training_batch

SHAPES = ((1, 1, 1), (2, 1, 5), (1, 3, 3), (1, 7, 13), (3, 12, 4))  # odd, oblong and tiny; channels, height, width


def run_net_checks(net: type[Net]) -> Iterator[Result]:
    """Hold a net against its contract, at its small settings, on the digits."""
    checks = {
        "settings": check_net_settings,
        "build": check_net_build,
        "scores": check_net_scores,
        "blocks": check_net_blocks,
        "shapes": check_net_shapes,
    }
    yield from _run({name: partial(check, net) for name, check in checks.items()})


def run_dataset_checks(dataset: DataSet, folder: Path) -> Iterator[Result]:
    """Hold a data set against its contract; its files must be in the folder."""
    data.require(dataset, folder)
    yield from _run({"read": lambda: check_dataset(dataset, folder)})


def check_net_settings(net: type[Net]) -> None:
    """Every setting has a default and a description."""
    for name, field in net.Settings.model_fields.items():
        require(not field.is_required(), f"setting '{name}' has no default")
        require(bool(field.description), f"setting '{name}' has no description")


def check_net_build(net: type[Net]) -> None:
    """Weights depend on `init` alone, and the global generator of torch is left alone."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (_weights(_small(net, seed)) for seed in (0, 0, 1))
    require(torch.equal(before, torch.get_rng_state()), "building the net moves torch's global generator")
    require(torch.equal(first, again), "two nets from one seed differ")
    require(not torch.equal(first, other), "another seed gives the same weights")


def check_net_scores(net: type[Net]) -> None:
    """Finite scores of shape (B, classes), the same each time where no noise is handed in."""
    built, x = _small(net).eval(), training_batch(0).x
    with torch.no_grad():
        scores, again = built(x), built(x)
    require(scores.shape == (len(x), 10), f"gives shape {tuple(scores.shape)} for {len(x)} images of 10 classes")
    require(bool(scores.isfinite().all()), "gives scores that are not finite")
    require(torch.equal(scores, again), "two calls without noise differ")


def check_net_blocks(net: type[Net]) -> None:
    """All parameters that blocks hold are the net's, and every block has some; a state restores the net."""
    built = _small(net)
    require(len(built.blocks) > 0, "has no blocks")
    own = {id(p) for p in built.parameters()}
    for k, block in enumerate(built.blocks):
        inside = list(block.parameters())
        require(bool(inside), f"block {k} has no parameters; join it to a neighbour")
        require(all(id(p) in own for p in inside), f"block {k} has parameters that the net does not know")
    file = io.BytesIO()
    torch.save(built.state_dict(), file)
    file.seek(0)
    other = _small(net, seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    require(torch.equal(_weights(built), _weights(other)), "its state does not restore it")


def check_net_shapes(net: type[Net]) -> None:
    """Images of any shape give scores, or the reason why they do not fit, as a ConfigError of `__init__`."""
    for shape in SHAPES:
        image, classes = Input("image", shape), Output.classes(3)
        if net.misfit(image, classes, net.small) is None:
            try:
                built = net.build(image, classes, net.small, torch.Generator().manual_seed(0)).eval()
                with torch.no_grad():
                    scores = built(torch.zeros(2, *shape))
            except (RuntimeError, ValueError) as error:
                said = textwrap.shorten(str(error), 120)
                raise ContractViolation(f"images of {shape}: {said}; raise ConfigError where none fit") from error
            require(scores.shape == (2, 3), f"gives shape {tuple(scores.shape)} for 2 images of {shape} in 3 classes")


def check_dataset(dataset: DataSet, folder: Path) -> None:
    """What is read passes the checks of every run, is the same each time, and is what the card says."""
    first, again = (data.load(dataset, data_dir=folder) for _ in range(2))
    require(first.fingerprint == again.fingerprint, "two readings differ")
    info = dataset.info
    for what, said, found in (
        ("input", info.given, first.input),
        ("output", info.wanted, first.output),
        ("n_train", info.n_train, len(first.train.y) + len(first.val.y)),
        ("n_test", info.n_test, len(first.test.y)),
    ):
        require(said in (None, found), f"its card says {what}={said}, read were {found}")


def _run(checks: Mapping[str, Callable[[], None]]) -> Iterator[Result]:
    for name, check in checks.items():
        began = perf_counter()
        message = complaint(check)
        yield Result(name, message is None, message or "", perf_counter() - began)


def _small(net: type[Net], seed: int = 0) -> Any:
    return net.build(digits().input, digits().output, net.small, torch.Generator().manual_seed(seed))


def _weights(net: Net) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])
