"""Share of a training step that each transform of batches costs, beside backprop on the cnn at batch size 128.

    python benchmarks/augmentation.py

The suite asks for less than 5 %. Transforms and steps take turns, so that both see the same machine.
"""

import statistics
import time
from collections.abc import Callable

import torch

from bench import Batch, Input, Output, Progress, Seeds, Task
from bench.catalog.catalog import Catalog

BATCH_SIZE, ROUNDS = 128, 15
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IMAGES, CLASSES = Input.image(3, 32, 32), Output.classes(10)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    catalog = Catalog()
    objective = catalog.objectives["cross-entropy"].load()(CLASSES)
    backprop = catalog.methods["backprop"].load()
    task = Task("images", IMAGES, CLASSES, objective, 50_000, catalog.nets["cnn"].load())
    method = backprop(task, backprop.Config(), device=DEVICE, seeds=Seeds(0, DEVICE, method="backprop"))
    x = torch.randn(BATCH_SIZE, *IMAGES.shape, device=DEVICE)
    y = torch.arange(BATCH_SIZE, device=DEVICE) % CLASSES.size
    draws = torch.Generator(DEVICE).manual_seed(0)
    transforms = {name: entry.load()(IMAGES, CLASSES) for name, entry in catalog.transforms.items()}
    steps, costs = [], {name: list[float]() for name in transforms}
    for _ in range(ROUNDS):
        steps.append(seconds(lambda: method.train_step(Batch(x, y), Progress(0, 1, 0))))
        for name, transform in transforms.items():
            costs[name].append(seconds(lambda transform=transform: transform(x.clone(), y, draws)))
    step = statistics.median(steps)
    print(f"step of backprop on the cnn, 3x32x32, batch {BATCH_SIZE}: {1000 * step:.2f} ms on {DEVICE}")
    for name, cost in costs.items():
        median = statistics.median(cost)
        print(f"{name:10} {1000 * median:7.3f} ms  {100 * median / step:5.2f} % of the step")


if __name__ == "__main__":
    main()
