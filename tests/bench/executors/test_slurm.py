"""Jobs of a cluster, with stand-ins for its commands: what is asked of sbatch, and what is not submitted twice."""

import os
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.cli.logs import logs
from bench.cli.main import app
from bench.cli.status import status
from bench.command import prepare
from bench.executors.executor import Options, make
from bench.executors.slurm_settings import SlurmSettings, split
from bench.experiment.config import Experiment
from bench.experiment.plan import Run
from bench.record import jobs
from bench.record.folder import RunFolder
from bench.record.standing import save_plan
from tests.bench.executors.test_executors import planned

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason="needs submitit")

SBATCH = """#!/bin/sh
cat "$(eval echo \\${$#})" >> {folder}/submitted
echo Submitted batch job 77
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands: sbatch keeps what is submitted in `submitted`, squeue tells the lines of `queue`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "queue").touch()
    commands = {"sbatch": SBATCH, "squeue": "#!/bin/sh\ncat {folder}/queue\n", "srun": "#!/bin/sh\n"}
    for name, text in commands.items():
        (folder / name).write_text(text.replace("{folder}", str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def handed_over(root: Path, runs: list[Run], **settings: Any) -> list[dict[str, Any] | None]:
    by = make(Catalog(), "slurm", {"detach": True, **settings})
    by.device("cpu")
    return by.run_all(runs, Options(root, "exp", "cpu"), lambda run, event: None, threading.Event())


def test_what_is_asked_of_sbatch(cluster: Path, tmp_path: Path) -> None:
    runs = planned()
    options = {"sbatch": ["constraint=a100&nvlink", "--exclusive"], "setup": ["module load cuda", "source env.sh"]}
    assert handed_over(tmp_path, runs, gpus=2, gpu_type="a100", **options) == [None] * 4
    lines = (cluster / "submitted").read_text().splitlines()
    for line in ("--constraint='a100&nvlink'", "--exclusive", "--gpus-per-node=a100:2"):
        assert f"#SBATCH {line}" in lines
    assert lines.index("module load cuda") < lines.index("source env.sh")
    assert any("srun" in line for line in lines[lines.index("source env.sh") :])


def test_what_waits_in_the_queue_is_not_submitted_again(cluster: Path, tmp_path: Path) -> None:
    runs = planned()
    handed_over(tmp_path, runs)
    once = (cluster / "submitted").read_text()
    notes = [jobs.read(RunFolder(tmp_path, "exp", run.spec.run_id)).job for run in runs]
    assert notes == ["77_0", "77_1", "77_2", "77_3"]
    (cluster / "queue").write_text("\n".join(notes))
    handed_over(tmp_path, runs)
    assert (cluster / "submitted").read_text() == once
    (cluster / "queue").write_text("\n".join(notes[:3]))  # the last one has left it without a word
    handed_over(tmp_path, runs)
    assert (cluster / "submitted").read_text() != once
    (cluster / "squeue").unlink()  # a submit host without it: what is at work is still seen by its lock
    assert handed_over(tmp_path, runs) == [None] * 4


def test_each_run_of_a_plan_is_told_with_its_job_and_its_output(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = planned()
    handed_over(tmp_path, runs)
    save_plan(tmp_path / "exp", [{**run.spec.model_dump(mode="json"), "run_id": run.spec.run_id} for run in runs])
    done, failed, begun, _ = (RunFolder(tmp_path, "exp", run.spec.run_id) for run in runs)
    for folder, end in ((done, {"status": "ok"}), (failed, {"status": "crashed", "reason": "no luck"})):
        folder.create(runs[0].spec.model_dump(mode="json"), None)
        folder.finish({**end, "method": "backprop", "net": "mlp", "dataset": "digits", "seed": 0, "device": "cpu"})
    jobs.begun(failed)
    failed.stderr.write_text("one\ntwo\nthree\n")
    (tmp_path / "exp" / ".slurm" / "77_1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "exp" / ".slurm" / "77_1" / "77_1_0_log.err").write_text("slurmstepd: of the job\n")
    lock = begun.lock()
    assert lock is not None
    assert status(tmp_path, runs=True) == 0
    os.close(lock)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    states = [line.partition("seed ")[2].split(" ", 1)[1] for line in lines[1:]]
    node = os.uname().nodename
    assert states == ["77_0 ok", f"{node} 77_1 crashed no luck", "77_2 at work, epoch 0 of 1", "77_3 queued"]

    assert logs(failed.run_id[:10], tmp_path, lines=2) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{failed.run_id}: ")
    assert "no luck" in told
    assert "two\nthree" in told
    assert "one" not in told
    assert "slurmstepd: of the job" in told
    with pytest.raises(ConfigError, match="no run nothing below .*: bench status .* --runs lists"):
        logs("nothing", tmp_path, lines=2)
    with pytest.raises(ConfigError, match="4 runs begin with : "):
        logs("", tmp_path, lines=2)


def test_the_command_line_hands_runs_over(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--sbatch constraint=a100 --sbatch exclusive --setup=module --requeues 2 --detach --steps 1 --quiet".split()
    code = app(["run", "--methods", "backprop", "--net", "mlp", "--executor", "slurm", *flags], standalone_mode=False)
    told = capsys.readouterr().out.splitlines()
    assert (code, told[0]) == (0, "submitted: 1 runs; ended before: 0")
    assert told[1].startswith("bench status results/default --runs: where they are")
    assert "#SBATCH --exclusive" in (cluster / "submitted").read_text()
    assert not Path("reports").exists()


def test_a_search_is_not_handed_over(cluster: Path) -> None:
    asked = Experiment(methods=["backprop"], net="mlp", tune={"trials": 2})
    with pytest.raises(ConfigError, match="detach: a search chooses"):
        prepare(asked, Catalog(), data_dir=None, download=False, executor=make(Catalog(), "slurm", {"detach": True}))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sbatch": ["-C a100"]}, "write an option of sbatch by its long name"),
        ({"sbatch": ["output=x"]}, "output is chosen by the suite"),
        ({"gpu_type": "a100"}, "gpu_type needs gpus above 0"),
        ({"gpu_type": "a100:2", "gpus": 1}, "gpu_type='a100:2' is refused"),
        ({"cluster": "local", "setup": ["module load cuda"]}, "leave them out with cluster=local"),
    ],
)
def test_what_no_cluster_takes_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make(Catalog(), "slurm", settings)


def test_an_option_of_sbatch_is_read_as_sbatch_has_it() -> None:
    assert [split(text) for text in ("exclusive", "--gres=gpu:1", "comment=a=b")] == [
        ("exclusive", True),
        ("gres", "gpu:1"),
        ("comment", "a=b"),
    ]
    assert SlurmSettings().sbatch == []
