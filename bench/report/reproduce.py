"""The command that repeats runs, from what they were asked to do."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

OPTIONS = {  # fields of a spec that are options of `bench run`, by their names
    "epochs": "epochs",
    "steps": "steps",
    "seconds": "seconds",
    "flops": "flops",
    "patience": "patience",
    "batch_size": "batch-size",
    "val_fraction": "val-fraction",
    "threads": "threads",
    "precision": "precision",
    "device": "device",
}
FLAGS = {"channels_last": "--channels-last", "compile": "--compile"}


def command(spec: Mapping[str, Any], seeds: Iterable[int], *, plugin: bool = False) -> str:
    """`bench run` with every setting spelt out; empty for a run that was only probed.

    plugin: whether the method is none that is installed.
    """
    if spec.get("probe_only"):
        return ""
    words = ["bench", "run", *(["--plugin", "FILE"] if plugin else [])]
    listed = ",".join(map(str, sorted(seeds)))
    words += ["--methods", spec["method"], "--datasets", spec["dataset"], "--net", spec["net"]]
    words += ["--seeds", listed if "," in listed else f"{listed},"]  # a number by itself is a count
    for field, option in OPTIONS.items():
        if spec.get(field) is not None and not (field == "epochs" and spec.get("steps") is not None):
            words += [f"--{option}", _plain(spec[field])]
    words += [flag for field, flag in FLAGS.items() if spec.get(field)]
    if spec.get("instruments"):
        words += ["--instruments", ",".join(spec["instruments"])]
    for owner, settings in ((spec["net"], "net_settings"), (spec["method"], "method_settings")):
        for name, value in sorted(spec.get(settings, {}).items()):
            words += ["--set", f"{owner}.{name}={_plain(value)}"]
    return shlex.join(map(str, words))


def _plain(value: Any) -> str:
    """As the command line reads it: words bare, everything else as JSON, which is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
