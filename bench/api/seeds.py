"""Named seed streams: the same axis and seed give the same draws, whatever else a run does.

`init` and `order` do not depend on the method, so methods that share a net start from the same weights and
see the same batches: their comparison is paired.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def derive(seed: int, *axis: str | int) -> int:
    """A 63-bit seed for an axis, by hash: neighbouring seeds share nothing."""
    text = "/".join(str(part) for part in (seed, *axis))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def drawn_from(init: torch.Generator) -> Iterator[None]:
    """Inside, torch's layers on the CPU draw their weights by a seed from `init`; the global generator, which they draw
    from, is as before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=init)))
        yield


class Seeds:
    """The generators of one run.

    init: weights, on the CPU so that every device starts alike. order: the order of examples, on the CPU.
    noise: a method's draws in training; augment: image augmentation; inference: draws of `predict`, reset by
    the harness before each evaluation. These three live on the device.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", *, method: str = "") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self.init = torch.Generator().manual_seed(derive(seed, "init"))
        self.order = torch.Generator().manual_seed(derive(seed, "order"))
        self.noise = torch.Generator(self.device).manual_seed(derive(seed, "noise", method))
        self.augment = torch.Generator(self.device).manual_seed(derive(seed, "augment"))
        self.inference = torch.Generator(self.device)
        self.for_inference("start", 0)

    def for_inference(self, *axis: str | int) -> None:
        """Put the draws of `predict` at a named place, so that evaluating leaves no trace."""
        self.inference.manual_seed(derive(self.seed, "inference", *axis))

    def for_epoch(self, epoch: int) -> None:
        """Put the order of examples at the start of an epoch, so that it depends on nothing that went before."""
        self.order.manual_seed(derive(self.seed, "order", epoch))

    def spawn(self, n: int) -> list[torch.Generator]:
        """n further generators on the device, seeded from `noise`: one per block that draws on its own."""
        seeds = torch.randint(2**62, (n,), generator=self.noise, device=self.device)
        return [torch.Generator(self.device).manual_seed(int(s)) for s in seeds]

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).get_state() for name in ("init", "order", "noise", "augment")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).set_state(value)
