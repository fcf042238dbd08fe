"""What tests of executors share: a toy method whose steps do as a test asks, and waiting for a condition."""

import time
from collections.abc import Callable
from pathlib import Path

# set-up takes steps too, to warm up, probe and examine; of training alone are those of the loop
IN_TRAINING = """
import sys

def in_training():
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.endswith("runner/loop.py"):
        frame = frame.f_back
    return frame is not None
"""
PLUGIN = (
    IN_TRAINING
    + """
import glob, os, shutil, signal, sys, time
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Toy(Method):
    info = MethodInfo(name="NAME", title="Toy", family="toy", paper="", claims=Claims("none"), nets=("mlp",))

    def __init__(self, task, config, *, device, seeds):
        self.steps = torch.zeros(())

    def train_step(self, batch, progress):
        self.steps += 1
        if progress.total_steps > 100 and in_training():
            self.act()
        return {"loss": torch.zeros(())}

    def act(self):
        ACT

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""
)


def plugin(folder: Path, act: str, name: str = "bad") -> str:
    """Its file. act: one line of Python, run in each step of a training of more than 100 steps."""
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.replace("NAME", name).replace("ACT", act))
    return str(path)


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
