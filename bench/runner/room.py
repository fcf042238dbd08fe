"""Whether the nets of a plan fit into this machine at all, told before the first run."""

import json
import os
from collections.abc import Mapping, Sequence

import torch

from bench.api.errors import ConfigError
from bench.data.outline import Outlined
from bench.experiment.plan import Run


def check(runs: Sequence[Run], datasets: Mapping[str, Outlined]) -> None:
    """Raises: ConfigError for a net whose weights alone are more than all memory of this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    nets = {(run.spec.net, json.dumps(run.spec.net_settings, sort_keys=True), run.spec.dataset): run for run in runs}
    for run in nets.values():
        count, size = parameters(run, datasets[run.spec.dataset])
        if size > memory:
            raise ConfigError(
                f"{run.spec.net}: {count:,} parameters take {size / 2**30:,.0f} GiB, and this machine has "
                f"{memory / 2**30:,.0f}; make the net smaller (bench estimate tells what a size takes)"
            )


def parameters(run: Run, shape: Outlined) -> tuple[int, int]:
    """How many parameters the run's net has, and their bytes, without allocating any; 0 where it cannot be told."""
    net = run.load().net
    try:
        with torch.device("meta"):
            found = list(net(shape.input, shape.output, net.Settings(**run.spec.net_settings)).parameters())
    except Exception:  # a stranger's net may not bear the meta device, or not these images: its run will say so
        return 0, 0
    return sum(p.numel() for p in found), sum(p.numel() * p.element_size() for p in found)
