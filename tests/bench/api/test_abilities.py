"""Abilities are of those methods that have their members, and of no other; the harness asks for them."""

from typing import Any

import pytest
from torch import nn

from bench import Method
from bench.api.abilities import Compiling, MicroBatched, Parallel
from bench.catalog.catalog import Catalog
from bench.runner import compute
from bench.scale.worker import plan_of

ABILITIES = (Parallel, MicroBatched, Compiling)


def test_methods_have_an_ability_where_they_implement_it(catalog: Catalog) -> None:
    classes = {name: entry.load() for name, entry in catalog.methods.items()}
    found = {of: {name for name, cls in classes.items() if issubclass(cls, of)} for of in ABILITIES}
    assert not any(issubclass(Method, of) for of in ABILITIES)
    assert {"noprop-dt", "diffusion-blocks", "backprop"} <= found[Parallel]
    assert {"backprop", "backprop-checkpointed"} <= found[MicroBatched]
    assert {"noprop-dt", "equilibrium-propagation", "predictive-coding"} <= found[Compiling]
    assert all("spsa" not in names for names in found.values())


def test_workers_share_a_method_that_has_a_plan(make_method: Any) -> None:
    assert plan_of(make_method("spsa")) is None
    assert plan_of(make_method("backprop")) is not None


def test_the_blocks_are_compiled_where_a_method_does_not_say_what(
    make_method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = list[nn.Module]()
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(module))
    method = make_method("spsa")
    compute.compile_steps(method)
    assert set(method.blocks()) <= set(compiled)
    compiled.clear()
    compute.compile_steps(make_method("predictive-coding"))
    assert not compiled
