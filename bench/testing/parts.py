"""The contracts of nets and data sets, which `bench check` holds them against."""

import io
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench import data
from bench.api.dataset import DataSet
from bench.api.kinds import Input, Output, OutputKind
from bench.api.net import Net
from bench.testing.finding import ContractViolation, Result, complaint, require
from bench.testing.layers import check_layers_of
from bench.testing.subject import digits, training_batch

# odd, oblong and tiny
INPUTS = (
    *(Input.image(*shape) for shape in ((1, 1, 1), (2, 1, 5), (1, 3, 3), (1, 7, 13), (3, 12, 4))),
    Input.vector(1), Input.vector(7), Input.sequence(1, 1), Input.sequence(5, 3), Input.tokens(1, 2),
    Input.tokens(6, 11),
)  # fmt: skip


def run_net_checks(net: type[Net]) -> Iterator[Result]:
    """Hold a net against its contract, at its small settings, on the digits or on other inputs that it takes."""
    checks = {
        "settings": check_net_settings,
        "build": check_net_build,
        "scores": check_net_scores,
        "blocks": check_net_blocks,
        "shapes": check_net_shapes,
        "layers": check_net_layers,
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
    """Finite outputs of the right shape, the same each time where no noise is handed in."""
    given, output = _kinds(net)
    built = _small(net).eval()
    x = training_batch(0).x if given.kind == "image" else _drawn(given)
    with torch.no_grad():
        scores, again = built(x), built(x)
    _check_shape(scores, len(x), output)
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
    """Inputs of any shape that it takes give outputs of any kind that it gives, or the reason why they do not fit, as a
    ConfigError of `__init__`.
    """
    for given, output in itertools.product(INPUTS, map(partial(_output, of=3), net.gives)):
        if net.misfit(given, output, net.small) is None:
            try:
                built = net.build(given, output, net.small, torch.Generator().manual_seed(0)).eval()
                with torch.no_grad():
                    scores = built(given.zeros(2))
            except (RuntimeError, ValueError) as error:
                said = textwrap.shorten(str(error), 120)
                raise ContractViolation(f"{given}: {said}; raise ConfigError where none fit") from error
            _check_shape(scores, 2, output)


def check_net_layers(net: type[Net]) -> None:
    """What its layers have registered for rules (`bench.api.layer`) is what autograd says of them."""
    given, _ = _kinds(net)
    check_layers_of(_small(net), training_batch(0).x[:4] if given.kind == "image" else _drawn(given)[:4])


def check_dataset(dataset: DataSet, folder: Path) -> None:
    """What is read passes the checks of every run, that of its kinds among them, is the same each time, and as much as
    the card says.
    """
    first, again = (data.load(dataset, data_dir=folder) for _ in range(2))
    require(first.fingerprint == again.fingerprint, "two readings differ")
    info = dataset.info
    for what, said, found in (
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
    return net.build(*_kinds(net), net.small, torch.Generator().manual_seed(seed))


def _kinds(net: type[Net]) -> tuple[Input, Output]:
    """Of the digits, where the net is made for images; else the last of `INPUTS` that it takes."""
    if "image" in net.takes:
        return digits().input, digits().output
    given = next(given for given in reversed(INPUTS) if given.kind in net.takes)
    return given, _output(net.gives[0], of=3)


def _output(kind: OutputKind, of: int) -> Output:
    return Output(kind, of, positions=6 if kind == "next token" else 0)


def _drawn(given: Input) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return given.draw(8)


def _check_shape(scores: torch.Tensor, n: int, output: Output) -> None:
    wanted = (n, *output.shape)
    require(scores.shape == wanted, f"gives shape {tuple(scores.shape)} for {n} examples and {output}, not {wanted}")


def _weights(net: Net) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])
