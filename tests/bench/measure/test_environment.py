"""What is noted of the place where a run was made, and what must not be."""

import getpass
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from bench.measure import environment as module
from bench.measure.environment import environment

CPU = torch.device("cpu")


def test_it_names_versions_and_machine_but_neither_host_nor_user() -> None:
    facts = environment(CPU, 2)
    assert torch.__version__.startswith(facts["versions"]["torch"].partition("+")[0])
    assert facts["threads"] == 2
    assert facts["cpu_count"] >= 1
    text = json.dumps({k: v for k, v in facts.items() if k not in ("git_commit", "env_id")})
    assert socket.gethostname() not in text
    assert f"/{getpass.getuser()}/" not in text


def test_the_identity_follows_the_facts() -> None:
    assert environment(CPU, 1)["env_id"] == environment(CPU, 1)["env_id"] != environment(CPU, 2)["env_id"]


def test_an_installed_copy_names_the_commit_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And calls itself dirty as soon as it differs from that."""
    checkout, installed = tmp_path / "checkout", tmp_path / "site-packages"
    for file in (
        checkout / "bench" / "measure" / "environment.py",
        installed / "bench" / "measure" / "environment.py",
        checkout / "bench" / "methods.py",
        checkout / "methods" / "rule.py",
        installed / "bench" / "methods" / "rule.py",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1")
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(module, "__file__", str(installed / "bench" / "measure" / "environment.py"))
    monkeypatch.setattr(module, "_installed_from", lambda: checkout)
    facts = module._git()
    assert len(facts["git_commit"]) == 40
    assert facts["git_dirty"] is False
    for file in ("measure/environment.py", "methods/rule.py"):
        (installed / "bench" / file).write_text("x = 2")
        assert module._git()["git_dirty"] is True
        (installed / "bench" / file).write_text("x = 1")
    shutil.rmtree(checkout)
    assert module._git() == {"git_commit": None, "git_dirty": None}
