"""A net larger than the machine is refused before its run, by its weights alone."""

from dataclasses import replace

import pytest

from bench import Input, Output
from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.data.outline import Outline
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, plan
from bench.runner import room

SHAPE = Outline(Input.image(1, 8, 8), Output.classes(10), n_train=999)


def run_on(catalog: Catalog, net: str, **settings: int) -> Run:
    asked = Experiment(methods=["backprop"], net=net, settings={net: settings})
    return plan(asked, catalog, device="cpu", datasets={"digits": SHAPE})[0]


def test_weights_are_counted_without_being_there(catalog: Catalog) -> None:
    count = (64 + 1) * 100_000 + (100_000 + 1) * 100_000 + (100_000 + 1) * 10
    run = run_on(catalog, "mlp", width=100_000)
    assert room.parameters(run, SHAPE) == (count, 4 * count)


def test_what_no_machine_holds_is_refused(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 4096}[name])  # 4 GiB
    room.check([run_on(catalog, "mlp")], {"digits": SHAPE})
    with pytest.raises(ConfigError, match=r"mlp: 10,.* parameters take 37 GiB, and this machine has 4; make"):
        room.check([run_on(catalog, "mlp", width=100_000)], {"digits": SHAPE})


def test_a_net_that_cannot_be_told_is_left_to_its_run(catalog: Catalog) -> None:
    run = run_on(catalog, "mlp")
    broken = replace(run, spec=run.spec.model_copy(update={"net_settings": {"width": "wide"}}))
    assert room.parameters(broken, SHAPE) == (0, 0)
