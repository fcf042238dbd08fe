"""Class prototypes against the brute-force definition."""

import statistics

import pytest
import torch
from torch import Tensor

from bench import Input, Output
from bench.api.dataset import Split
from bench.data import Dataset, class_prototypes, prototypes


def dataset(x: Tensor, y: Tensor, n_classes: int) -> Dataset:
    of_x = x.double() / 255
    mean, std = of_x.mean((0, 2, 3)).float(), of_x.std((0, 2, 3)).float()
    other = Split(x[:1], y[:1])
    return Dataset(
        "toy", Input.image(*x.shape[1:]), Output.classes(n_classes), Split(x, y), other, other, mean, std, ""
    )


def by_brute_force(data: Dataset) -> Tensor:
    """The image whose lower median distance to the OTHER images of its class is least, normalised."""
    rows = []
    for label in range(data.output.size):
        members = [
            (x.double() / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
            for x, y in zip(*data.train, strict=True)
            if y == label
        ]
        medians = []
        for i, one in enumerate(members):
            distances = [float((one - other).norm()) for j, other in enumerate(members) if j != i]
            medians.append(statistics.median_low(distances) if distances else 0.0)
        rows.append(members[medians.index(min(medians))].float())
    return torch.stack(rows)


@pytest.fixture(params=[0, 1, 2])
def data(request: pytest.FixtureRequest) -> Dataset:
    """Colour images of three classes with 41, 40 and 7 members, mixed."""
    generator = torch.Generator().manual_seed(request.param)
    y = torch.cat([torch.full((n,), label) for label, n in enumerate((41, 40, 7))])
    y = y[torch.randperm(len(y), generator=generator)]
    x = torch.randint(256, (len(y), 3, 4, 4), generator=generator, dtype=torch.uint8)
    return dataset(x, y, 3)


@pytest.mark.parametrize("chunk", [1, 6, 20, 41, 1024])
def test_a_prototype_has_the_least_median_distance_to_the_others(
    data: Dataset, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the distances are cut into chunks."""
    monkeypatch.setattr(prototypes, "CHUNK", chunk)
    torch.testing.assert_close(class_prototypes(data), by_brute_force(data))


def test_of_an_even_number_of_distances_the_lower_middle_one_counts() -> None:
    """Points 0, 10, 12, 50, 110: medians to the others are 12, 10, 12, 40, 98 by the lower middle one."""
    x = torch.tensor([0, 10, 12, 50, 110], dtype=torch.uint8).view(5, 1, 1, 1)
    data = dataset(x, torch.zeros(5, dtype=torch.int64), 1)
    expected = (10 / 255 - data.mean) / data.std
    torch.testing.assert_close(class_prototypes(data).flatten(), expected)


@pytest.mark.parametrize("size", [1, 2])
def test_of_one_image_or_two_the_first_stands_for_the_class(size: int) -> None:
    x = torch.tensor([40, 200, 90], dtype=torch.uint8).view(3, 1, 1, 1)
    data = dataset(x, torch.tensor([0, 0, 1] if size == 2 else [0, 1, 1]), 2)
    expected = (x[0].double() / 255 - data.mean) / data.std
    torch.testing.assert_close(class_prototypes(data)[0].flatten(), expected.flatten().float())


def test_only_training_images_are_looked_at(data: Dataset) -> None:
    """Held-out images that would be the most central of their class are not chosen."""
    central = by_brute_force(data)
    held_out = Split(data.train.x.float().mean(0, keepdim=True).byte().expand(50, -1, -1, -1), torch.zeros(50).long())
    other = Dataset("toy", data.input, Output.classes(3), data.train, held_out, held_out, data.mean, data.std, "")
    torch.testing.assert_close(class_prototypes(other), central)


def test_a_class_without_a_training_image_is_named() -> None:
    data = dataset(torch.zeros(2, 1, 2, 2, dtype=torch.uint8).random_(256), torch.tensor([0, 2]), 3)
    with pytest.raises(ValueError, match="toy has no training image of class 1"):
        class_prototypes(data)
