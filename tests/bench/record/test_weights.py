"""The file of weights: what goes in comes out, and nothing else is taken for it."""

import json
import struct
from collections.abc import Callable, Mapping
from math import nan
from typing import Any

import numpy as np
import pytest
import torch

from bench import Batch, Method
from bench.api.errors import MethodError
from bench.catalog.catalog import Catalog
from bench.record.weights import check, from_bytes, to_bytes
from bench.testing.subject import training_batch

W = torch.arange(6.0).reshape(2, 3)
STATES: dict[str, dict[str, Any]] = {
    "nested": {"net": {"0.weight": W, "0": {"bias": W[0]}}, "lr": 0.1, "steps": 3, "name": "x", "on": True, "no": None},
    "keys": {"optimizer": {"state": {0: {"exp_avg": W}, 1: {}}, "param_groups": [{"betas": (0.9, 0.99)}]}},
    "names that meet": {"a.b": W, "a": {"b": W + 1}},
    "shared memory": {"tied": [W, W], "view": W[1:]},
    "strides": {"w": W.T, "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)},
    "types": {
        "half": W.bfloat16(), "rng": torch.Generator().get_state(), "flag": torch.tensor(True), "no": W[:0], "nan": nan
    },
    "empty": {},
}  # fmt: skip


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_comes_back_as_it_was(state: dict[str, Any]) -> None:
    assert alike(from_bytes(to_bytes(state, "run"), "run"), state)


def test_tensors_have_the_names_of_their_places() -> None:
    from safetensors.torch import load

    assert sorted(load(to_bytes(STATES["nested"], "run"))) == ["net.0.bias", "net.0.weight"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"net": {"w": np.zeros(3)}}, "a ndarray in 'net.w', which cannot be kept as weights"),
        ({"w": W.to_sparse()}, "a sparse or quantised tensor in 'w'"),
        ({"net": {(1, 2): W}}, "a key of type tuple in 'net'"),
    ],
)
def test_what_has_no_such_form_is_refused(state: dict[str, Any], message: str) -> None:
    for refuse in (check, lambda state: to_bytes(state, "run")):
        with pytest.raises(MethodError, match=message):
            refuse(state)


def test_damage_and_other_files_are_refused() -> None:
    data = to_bytes(STATES["nested"], "run")
    bad = [b"", data[:40], data[:-4], data.replace(b'\\"tensor\\"', b'\\"tensir\\"'), _with_metadata({})]
    bad += [
        _with_metadata({"bench": f'{{"run_id": "run", "structure": {text}}}'})
        for text in ("[", "[1]", '{"tensor": "x"}', '{"dict": 1}')
    ]
    for other in bad:
        with pytest.raises(ValueError):
            from_bytes(other, "run")
    with pytest.raises(ValueError, match="it is of run run"):
        from_bytes(data, "another")


def _with_metadata(metadata: Mapping[str, str]) -> bytes:
    head = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(head)) + head


@pytest.mark.parametrize("name", sorted(Catalog().methods))
def test_the_state_of_every_rule_comes_back(name: str, make_method: Callable[..., Method]) -> None:
    """After two steps, so that optimisers have their moments."""
    method = make_method(name)
    x, y = training_batch(0)
    _steps(method, Batch(x[:16], y[:16]))
    state = method.state_dict()
    found = from_bytes(to_bytes(state, "run"), "run")
    assert alike(found, state)
    other = make_method(name, seed=1).load_state_dict(found)
    assert alike(other.state_dict(), state)


def _steps(method: Method, batch: Batch) -> None:
    from bench import Progress

    for step in range(2):
        method.train_step(batch, Progress(step, 4, 0))


def alike(a: Any, b: Any) -> bool:
    """Same types, same values; NaN is NaN."""
    if isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(b, Mapping):
        return isinstance(a, Mapping) and list(a) == list(b) and all(alike(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and repr(a) == repr(b)
