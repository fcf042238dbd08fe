"""How long a step over n workers takes, computed from what one worker was seen to do and what a link carries.

A message of b bytes takes latency + b / bandwidth; nothing is sent while something is computed, but for a pipeline's
messages between stages. All-reduce: 2 (n - 1) messages of b / n bytes around a ring. Workers do not slow each other
down, which real ones on one machine do: they share its memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.scale.ways import shares


class Wire(NamedTuple):
    """Between any two workers. latency_s: of an empty message; bytes_per_s: of a large one."""

    latency_s: float
    bytes_per_s: float

    def message(self, n_bytes: float) -> float:
        return self.latency_s + n_bytes / self.bytes_per_s

    def all_reduce(self, n_bytes: float, workers: int) -> float:
        return 2 * (workers - 1) * self.message(n_bytes / workers) if workers > 1 else 0.0


class Predicted(NamedTuple):
    """step_s: of the slowest worker. idle: the part of it in which each waits. n_bytes: sent by all together."""

    step_s: float
    idle: list[float]
    n_bytes: float


def blocks(of: Mapping[str, Any], workers: int, wire: Wire) -> Predicted:
    """of: block_s of each block, shared_s, and shared_bytes of each block's gradient by what is shared."""
    parts = shares(len(of["block_s"]), workers)
    own = [sum(of["block_s"][k] for k in part) for part in parts]
    if not of["shared_bytes"]:
        own[-1] += of["shared_s"]
        return _waiting(max(own), own, 0.0)
    sent = [len(part) * of["shared_bytes"] for part in parts]
    # each worker's gradients go to all others, one root after another, each along a chain
    exchange = sum((workers - 1) * wire.message(n_bytes) for n_bytes in sent) if workers > 1 else 0.0
    busy = [seconds + of["shared_s"] for seconds in own]
    return _waiting(max(busy) + exchange, busy, (workers - 1) * sum(sent))


def data(of: Mapping[str, Any], workers: int, wire: Wire, batch_size: int) -> Predicted:
    """of: step_s by the size of a worker's part, and gradient_bytes."""
    busy = [of["step_s"][str(len(part))] for part in shares(batch_size, workers)]
    exchange = wire.all_reduce(of["gradient_bytes"], workers)
    return _waiting(max(busy) + exchange, busy, 2 * (workers - 1) * of["gradient_bytes"])


def pipeline(of: Mapping[str, Any], workers: int, wire: Wire, batch_size: int, n_micro: int) -> Predicted:
    """GPipe. of: forward_s and backward_s of each block on a micro-batch, update_s, and bytes of what is handed on."""
    parts = shares(len(of["forward_s"]), workers)
    if workers == 1:
        whole = of["step_s"][str(batch_size)]  # in one process there is no need of micro-batches
        return _waiting(whole, [whole], 0.0)
    forward = [sum(of["forward_s"][k] for k in part) for part in parts]
    backward = [sum(of["backward_s"][k] for k in part) for part in parts]
    updates = [of["update_s"] * len(part) / len(of["forward_s"]) for part in parts]
    handed = [of["hidden_bytes"][part.stop] for part in parts[:-1]]  # for an image, at each boundary
    hops = [wire.message(n_bytes * batch_size / n_micro) for n_bytes in handed]
    there = _flow(forward, hops, n_micro, [0.0] * workers)
    back = _flow(backward[::-1], hops[::-1], n_micro, there[::-1])[::-1]
    rest = wire.all_reduce(of["rest_bytes"], workers) if of["rest_bytes"] else 0.0
    step = max(back) + rest + max(updates)
    busy = [n_micro * (f + b) + u for f, b, u in zip(forward, backward, updates, strict=True)]
    return _waiting(step, busy, 2 * sum(handed) * batch_size + 2 * (workers - 1) * of["rest_bytes"])


def _flow(seconds: Sequence[float], hops: Sequence[float], n_micro: int, free: Sequence[float]) -> list[float]:
    """When each stage is done with the last micro-batch. free: when each may begin."""
    done = list(free)
    for _ in range(n_micro):
        arrived = 0.0
        for stage, of_stage in enumerate(seconds):
            done[stage] = max(done[stage], arrived) + of_stage
            arrived = done[stage] + (hops[stage] if stage < len(hops) else 0.0)
    return done


def _waiting(step_s: float, busy: Sequence[float], n_bytes: float) -> Predicted:
    return Predicted(step_s, [1 - seconds / step_s for seconds in busy], n_bytes)
