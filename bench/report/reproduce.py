"""The command that repeats runs, from what they were asked to do."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from bench.experiment import flag
from bench.experiment.config import Experiment
from bench.experiment.identity import RunSpec

SPELT_OUT = {"tuned"}  # a run names the settings that a search chose; its command has their values


def command(spec: Mapping[str, Any], seeds: Iterable[int], *, plugin: bool = False) -> str:
    """`bench run` with every setting spelt out; empty for a run that was only probed.

    plugin: whether the method is none that is installed.
    """
    if spec.get("probe_only"):
        return ""
    asked = {name: spec[name] for name in RunSpec.model_fields if name in spec and name not in SPELT_OUT}
    asked |= {"methods": [spec["method"]], "datasets": [spec["dataset"]], "seeds": sorted(seeds)}
    if spec.get("steps") is not None:  # epochs follow from them
        del asked["epochs"]
    settings = {spec["net"]: spec.get("net_settings", {}), spec["method"]: spec.get("method_settings", {})}
    words = ["bench", "run", *(["--plugin", "FILE"] if plugin else [])]
    return shlex.join([*words, *flag.words(Experiment, asked), *flag.assignments(settings)])
