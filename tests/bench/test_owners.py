"""Losses of labels, one-hot labels and the class with the highest score have owners: objectives and metrics."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWNERS = ("bench/objectives/", "bench/metrics/")
USES = re.compile(r"\b(cross_entropy|nll_loss|one_hot|argmax)\(")
# a law of their own, over what are no labels of the task
MAY = {
    "bench/audit/read_out.py": "fits its own linear read-out",
    "bench/data/loading.py": "draws splits by the most probable class",
    "bench/report/drawing.py": "names the line that ends highest",
    "bench/testing/judges.py": "writes dense targets out, to compare objectives with",
    "bench/transforms/mixing.py": "mixes labels of two examples",
    "methods/local/goodness.py": "draws a wrong label, the hardest of all",
    "methods/local/loco.py": "tells views of one image from those of others",
    "methods/local/sigprop.py": "looks for the nearest context",
}


def test_no_rule_net_or_part_of_the_harness_judges_labels_by_itself() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in ("bench", "methods")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if USES.search(line)])
    }
    others = {path: lines for path, lines in found.items() if not path.startswith(OWNERS) and path not in MAY}
    assert not others, f"ask task.objective or a metric: {others}"
    assert not MAY.keys() - found.keys(), "leave out of MAY what does not judge any more"
