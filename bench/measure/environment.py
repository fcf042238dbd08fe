"""What a run was made with: versions, processor, GPU, commit. No host or user name."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import urllib.parse
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.measure.cpu_load import cores

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
        "cpu_count": len(cores()),
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
    """Commit of the checkout that the suite runs or was installed from, and whether it differs from that commit."""
    here = Path(__file__).resolve().parents[2]
    home = here if (here / ".git").exists() else _installed_from()
    if home is None or not (home / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    commit, status = (_run_git(home, *args) for args in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    if commit is None or status is None:
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(status) or (home != here and not _same_sources(here, home))}


def _installed_from() -> Path | None:
    """The folder that pip installed this package from, as pip noted it."""
    try:
        note = importlib.metadata.distribution(_PACKAGES[0]).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = urllib.parse.urlsplit(json.loads(note)["url"]) if note else None
    return Path(urllib.parse.unquote(url.path)) if url and url.scheme == "file" else None


def _same_sources(installed: Path, checkout: Path) -> bool:
    """Whether the modules that run are, byte for byte, those of the checkout."""
    places = {"bench": "bench", "methods": "bench/methods"}  # of the checkout, and where a wheel has them
    pairs = [
        (file, installed / place / file.relative_to(checkout / top))
        for top, place in places.items()
        for file in (checkout / top).rglob("*.py")
        if file != checkout / "bench" / "methods.py"
    ]
    return all(copy.is_file() and copy.read_bytes() == file.read_bytes() for file, copy in pairs)


def _run_git(home: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(home), *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
