"""Images per second that the data path feeds on one core, at batch size 128, from a shuffled order, with the images on
the device and on the host.

    python benchmarks/data_path.py

The suite asks for 500,000 images/s of 28x28. Median of several passes over synthetic data.
"""

import statistics
import time

import torch

from bench import Split
from bench.data import Batches

BATCH_SIZE = 128
N_IMAGES = 50_000
PASSES = 7
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = {"mnist": (1, 28, 28), "cifar": (3, 32, 32)}


def images_per_second(image_shape: tuple[int, int, int], *, on_host: bool) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (N_IMAGES, *image_shape), dtype=torch.uint8, generator=generator)
    y = torch.randint(10, (N_IMAGES,), generator=generator)
    half = torch.full(image_shape[:1], 0.5)
    batches = Batches(Split(x, y), half, half, DEVICE, BATCH_SIZE, on_host=on_host)
    rates = []
    for _ in range(PASSES):
        start = time.perf_counter()
        for index in torch.split(batches.order(generator), BATCH_SIZE):
            batches.batch(index)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        rates.append(N_IMAGES / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    torch.set_num_threads(1)
    for name, image_shape in SHAPES.items():
        size = "x".join(map(str, image_shape))
        for held, on_host in (("device", False), ("host", True)):
            rate = images_per_second(image_shape, on_host=on_host)
            print(f"{name}-shaped {size:>8}, on the {held:<6}: {rate:>12,.0f} images/s on {DEVICE}")


if __name__ == "__main__":
    main()
