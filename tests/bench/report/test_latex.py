"""The table for a paper: numbers as siunitx wants them, bold where tests say so, and names that break nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.api.errors import ConfigError
from bench.report.latex import escape, results_tex
from tests.bench.report.made import Made, frame, run, two_methods

NASTY = r"<img src=x> & 50% of $x_1^2$ ~ \input{/etc/passwd} #{|}"


def tex(runs: list[dict[str, object]], *columns: str) -> str:
    return results_tex(Made(frame(runs)), columns)


def test_an_accuracy_with_its_interval_is_in_the_last_digits() -> None:
    """0.96, 0.97, 0.98: 97 and 4.303 x 1 / sqrt(3) = 2.48."""
    assert "97.00(248)" in tex([run(seed=s) for s in range(3)], "test_acc")
    assert " 96.00 & 1/1" in tex([run(seed=0)], "test_acc")


def test_bold_is_what_differs_from_backprop_by_the_tests() -> None:
    def rows(other: float) -> list[dict[str, object]]:
        wobble = [0.0, 0.002, 0.004]
        return [
            *(run("backprop", seed=s, test_acc=0.9 + wobble[s]) for s in range(3)),
            *(run("noprop-dt", seed=s, test_acc=other - wobble[s]) for s in range(3)),
        ]

    assert re.search(r"noprop-dt & \\bfseries 79\.80", tex(rows(0.8), "test_acc"))
    assert "bfseries" not in tex(rows(0.904), "test_acc")


def test_a_failed_run_is_counted_and_an_unknown_column_named() -> None:
    text = results_tex(Made(two_methods()))
    assert "& 2/3 " in text
    with pytest.raises(ConfigError, match="unknown column 'tst_acc'; did you mean test_acc"):
        tex([run()], "tst_acc")


def test_no_special_character_is_left_bare() -> None:
    text = escape(NASTY)
    assert re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", text).isascii()
    assert not set("&%$#_^~\\{}<>|") & set(re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", text))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_sets_it(tmp_path: Path) -> None:
    runs = [run(method, seed=s, test_acc=0.5 + 0.2 * s) for method in ("backprop", NASTY) for s in range(3)]
    page = r"\documentclass{article}\usepackage{booktabs,siunitx}\begin{document}" + tex(runs) + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "siunitx.sty' not found" in done.stdout:
        pytest.skip("siunitx is not installed")
    assert done.returncode == 0, done.stdout[-2000:]
