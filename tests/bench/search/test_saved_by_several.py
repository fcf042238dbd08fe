"""Settings saved by several processes at once: every row is there."""

import multiprocessing
from pathlib import Path
from typing import Any

from bench.catalog.catalog import Catalog
from bench.search import saved
from tests.bench.record.test_merge import search

ROWS, PROCESSES = 5, 4


def _save(folder: Path, number: int, barrier: Any) -> None:
    entry = Catalog([folder / "rule.py"]).methods["rule"]
    files = saved.files_for([entry], ship=True)
    barrier.wait()
    for k in range(ROWS):
        row = search(0.1).model_copy(update={"method": "rule", "dataset": f"d{number}-{k}"})
        assert list(saved.save([row], files))


def test_several_processes_that_save_at_once_keep_all_rows(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text(
        "import torch\nfrom bench import Claims, Method, MethodInfo, register\n\n"
        "@register\nclass Rule(Method):\n"
        "    info = MethodInfo('rule', 'Rule', 'Rule.', '', Claims(reverse_mode='none'))\n"
        "    def train_step(self, batch, progress):\n        return {'loss': torch.zeros(())}\n"
        "    def predict(self, x, noise=None):\n        return torch.zeros(len(x), 10)\n"
    )
    forked = multiprocessing.get_context("fork")
    barrier = forked.Barrier(PROCESSES)
    at_work = [forked.Process(target=_save, args=(tmp_path, number, barrier)) for number in range(PROCESSES)]
    for process in at_work:
        process.start()
    for process in at_work:
        process.join(60)
        assert process.exitcode == 0
    assert len(saved.load(tmp_path / "rule.tuned.yaml")) == ROWS * PROCESSES
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["rule.py", "rule.tuned.yaml"]
