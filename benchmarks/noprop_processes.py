"""NoProp-DT's blocks over worker processes: throughput of W workers against one, each on one thread.

    python benchmarks/noprop_processes.py [--rounds 5] [--workers 2] [--width 32]

One worker and W workers take turns on the same batches (the net of Figure 6, MNIST's shape, batch 128, T = 10).
"""

import argparse
import statistics
import time

import torch

from bench import Batch, Progress, Seeds, Task
from methods.noprop.dt import NoPropDT, NoPropDTSettings

CPU = torch.device("cpu")
PROGRESS = Progress(0, 1, 0, 1, 0)


def build(execution: str, workers: int, width: int) -> NoPropDT:
    torch.set_num_threads(workers)
    task = Task("mnist", 10, (1, 28, 28), 60_000, "denoiser", {"T": 10, "width": width, "hidden": 8 * width})
    method = NoPropDT(task, NoPropDTSettings(execution=execution), device=CPU, seeds=Seeds(0))
    torch.set_num_threads(1)
    return method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()

    batch = Batch(torch.randn(128, 1, 28, 28), torch.arange(128) % 10)
    methods = {
        "loop": build("loop", 1, options.width),
        "1 worker": build("processes", 1, options.width),
        f"{options.workers} workers": build("processes", options.workers, options.width),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_ in range(options.rounds + 1):
        for name, method in methods.items():
            began = time.perf_counter()
            method.train_step(batch, PROGRESS)
            if round_:  # the first one starts the workers
                seconds[name].append(time.perf_counter() - began)
    one = seconds["1 worker"]
    for name, times in seconds.items():
        speed = statistics.median(a / b for a, b in zip(one, times, strict=True))
        print(f"{name:>10}  {128 / statistics.median(times):8.1f} images/s  {speed:.2f}x one worker")
    reference = methods["loop"].net.state_dict()
    for name, method in methods.items():
        equal = all(torch.equal(tensor, reference[key]) for key, tensor in method.net.state_dict().items())
        print(f"{name:>10}  parameters {'equal to' if equal else 'DIFFERENT from'} the loop's, bit for bit")


if __name__ == "__main__":
    main()
