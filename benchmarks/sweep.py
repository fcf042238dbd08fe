"""What a sweep costs beside its runs: many small runs on the slots of a machine against the sum of their times.

    python benchmarks/sweep.py [--runs 200] [--jobs 2] [--epochs 40]

The suite asks for 95 % of the ideal, the sum of the runs' own times over the slots. A run's own time is that of its
process from the first to the last line, set-up and evaluation included; what is left is the start of processes,
records, the display and the last slot's waiting. `sweep` is from the first run's start to the end of the last,
`command` the whole of `bench run`, with its imports, the plan and the report. A run costs about 40 ms beside its own
time, to fork and to clear away a process that has torch loaded, so that shorter runs stay below: 94 % for 0.7 s.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("backprop", "drtp", "feedback-alignment", "direct-feedback-alignment")
COMMAND = (sys.executable, "-c", "from bench.cli.main import main; main()")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    of_each = [f"--seeds={args.runs // len(METHODS)}", f"--epochs={args.epochs}", "--net=mlp"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        asked = [*COMMAND, "run", f"--methods={','.join(METHODS)}", *of_each, f"--jobs={args.jobs}"]
        subprocess.run(asked, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        command_s = time.perf_counter() - began
        runs = [json.loads(path.read_bytes()) for path in Path(folder).glob("results/*/*/summary.json")]
    took = [run["wall_s"] for run in runs]
    ideal_s = sum(took) / args.jobs
    sweep_s = max(run["finished_at"] for run in runs) - min(run["finished_at"] - run["wall_s"] for run in runs)
    print(f"{len(runs)} runs of {statistics.median(took):.2f} s on {args.jobs} slots; ideal {ideal_s:.1f} s")
    for name, seconds in (("sweep", sweep_s), ("command", command_s)):
        print(f"{name:<8}{seconds:>8.1f} s{ideal_s / seconds:>9.1%} of the ideal")


if __name__ == "__main__":
    main()
