"""What a run was made with: versions, processor, GPU, commit. No host or user name."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("backprop-free-bench", "torch", "torchvision", "numpy", "scikit-learn", "pydantic", "torchdiffeq")


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """The environment as plain values; `env_id` is the hash of the others."""
    facts = {**_machine(), **_gpu(device), "threads": threads}
    facts["env_id"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return facts


@cache
def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "versions": {name: _version(name) for name in _PACKAGES},
        **_git(),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"gpu": None}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    """Commit and dirty flag of the suite's own checkout; null where it is installed without one."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    commit, status = (_run_git(home, *args) for args in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    return {"git_commit": commit, "git_dirty": None if status is None else bool(status)}


def _run_git(home: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(home), *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
