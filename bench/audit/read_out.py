"""How much of the class each layer tells: the accuracy of a linear read-out of its own, fitted when training is over.

    min over W, b of   1/N sum_n CE(W z_n + b, y_n) + PENALTY / 2 |W|^2

z_n is what the layer gives for image n as the method predicts it, with every draw at its mean; each feature less its
mean and divided by its standard deviation over the training images. Maps of more than FEATURES entries are average-
pooled to fewer. The problem is convex and L-BFGS solves it: there is no step size and no seed in what is found.
Layer 0 is the input itself, which tokens have not as numbers. A layer is left out where a prediction does not call it
with one row for each image, as where a rule scores every label of an image apart. Labels that are no classes give no
rows.

Source: Alain, Bengio 2017, "Understanding intermediate layers using linear classifier probes".
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.column import Value
from bench.api.instrument import EndProbe
from bench.api.method import Method
from bench.api.task import Batch
from bench.catalog.register import register

PENALTY = 1e-3
FEATURES = 2048  # of a layer at most
ITERATIONS = 100
CHUNK = 500  # images predicted at once


@register
class ReadOut(EndProbe):
    """Read-out accuracy of each layer."""

    name = "read-out"
    fields = ("layer", "features", "train_accuracy", "accuracy", "n_images")

    def look(self, method: Method, train: Batch, held_out: Batch) -> list[dict[str, Value]]:
        rows: list[dict[str, Value]] = []
        if train.y.ndim != 1 or train.y.is_floating_point():
            return rows
        for layer, (z, z_held_out) in _by_layer(method, train.x, held_out.x):
            own, other = read_out(Batch(z, train.y), Batch(z_held_out, held_out.y))
            row: dict[str, Value] = {"layer": layer, "features": z.shape[1]}
            rows.append({**row, "train_accuracy": own, "accuracy": other, "n_images": len(held_out.y)})
        return rows


def read_out(train: Batch, held_out: Batch) -> tuple[float, float]:
    """Accuracy on both of the linear classifier fitted to `train`. Shape: x (N, features), any scale.

    NaN where features are not finite.
    """
    if not (train.x.isfinite().all() and held_out.x.isfinite().all()):
        return float("nan"), float("nan")
    std, mean = torch.std_mean(train.x, dim=0)
    scale = torch.where(std > 0, 1 / std, 0)  # a constant feature tells nothing
    x, x_held_out = ((of.x - mean) * scale for of in (train, held_out))
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        linear = _fitted(x, train.y, int(max(train.y.max(), held_out.y.max())) + 1)
    with torch.no_grad():
        own, other = (
            float((linear(z).argmax(1) == y).float().mean()) for z, y in ((x, train.y), (x_held_out, held_out.y))
        )
    return own, other


def _fitted(x: Tensor, y: Tensor, n_classes: int) -> nn.Linear:
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, x.shape[1], n_classes, device=x.device)
    for p in linear.parameters():
        nn.init.zeros_(p)
    search = torch.optim.LBFGS(
        linear.parameters(), max_iter=ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        penalised = F.cross_entropy(linear(x), y) + PENALTY / 2 * linear.weight.square().sum()
        torch.autograd.backward(penalised)
        return penalised

    search.step(loss)
    return linear


def _by_layer(method: Method, *images: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """Number and features of each layer, for each set of images; one layer of all of them in memory at a time."""
    if images[0].is_floating_point():
        yield 0, [_features(x) for x in images]
    for k, block in enumerate(_called(method, images[0][:2]), start=1):
        found = [_outputs(method, block, x) for x in images]
        if all(z is not None for z in found):
            yield k, [z for z in found if z is not None]


def _called(method: Method, x: Tensor) -> list[nn.Module]:
    """The blocks of the net, or those that the method makes of them: of which a prediction calls more."""
    sets = [[] if method.net is None else list(method.net.blocks), method.blocks()]
    return max(sets, key=lambda blocks: sum(_outputs(method, block, x) is not None for block in blocks))


@torch.no_grad()
def _outputs(method: Method, block: nn.Module, x: Tensor) -> Tensor | None:
    """What a block gives for images, one row each; None where it is not called so."""
    seen: list[Tensor] = []

    def note(rows: int, module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and len(output) == rows:
            seen.append(_features(output))

    found: list[Tensor] = []
    for chunk in x.split(CHUNK):
        seen.clear()
        with ExitStack() as stack:
            handle = block.register_forward_hook(partial(note, len(chunk)))
            stack.callback(handle.remove)
            method.predict(chunk)
        if not seen:
            return None
        found.append(seen[-1])
    return torch.cat(found)


def _features(z: Tensor) -> Tensor:
    """Rows of at most FEATURES entries, where pooling a map can make them so few. Shape: (B, ...) to (B, features)."""
    if z.dim() == 4 and z[0].numel() > FEATURES:
        side = max(1, int((FEATURES / z.shape[1]) ** 0.5))
        z = F.adaptive_avg_pool2d(z.float(), (min(side, z.shape[2]), min(side, z.shape[3])))
    return z.detach().flatten(1).float()
