"""Transforms: what the built-in ones do, where they are refused, and that every rule sees the same batches."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.api.errors import ConfigError
from bench.api.kinds import Input, InputKind, Output
from bench.api.task import Batch, Progress
from bench.api.transform import Transform
from bench.catalog.catalog import Catalog
from bench.data.outline import outline
from bench.experiment.config import resolve
from bench.experiment.plan import Run, plan, refusal
from bench.experiment.transforming import fitting
from bench.objectives.cross_entropy import CrossEntropy
from bench.transforms.crop import Crop
from bench.transforms.cutmix import CutMix
from bench.transforms.cutout import Cutout
from bench.transforms.flip import Flip
from bench.transforms.mixup import Mixup
from tests.bench.runner.made import Watched, spec, start, stop_at_step, tensors

CATALOG = Catalog()
IMAGE, CLASSES = Input.image(2, 16, 24), Output.classes(3)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int) -> Tensor:
    return torch.randn(n, *IMAGE.shape, generator=draws(9))


def test_flip_mirrors_half_of_the_images_and_leaves_the_others() -> None:
    x, y = images(400), torch.arange(400)
    after, labels = Flip(IMAGE, CLASSES)(x.clone(), y, draws())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(after, x, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(after, x, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 160 < sum(mirrored) < 240
    assert torch.equal(labels, y)


def test_crop_moves_each_image_by_itself_and_fills_with_zeros() -> None:
    """Against the obvious: a padded copy, cut at every place."""
    x = images(300)
    after, _ = Crop(IMAGE, CLASSES)(x.clone(), torch.zeros(300), draws())
    places = set()
    for before, moved in zip(x, after, strict=True):
        padded = torch.zeros(2, 16 + 4, 24 + 6)
        padded[:, 2:-2, 3:-3] = before
        found = [
            (top, left)
            for top in range(5)
            for left in range(7)
            if torch.equal(padded[:, top : top + 16, left : left + 24], moved)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 35, "every place comes up in 300 images"


@pytest.mark.parametrize("cls", [Flip, Crop, Cutout, Mixup, CutMix])
def test_draws_are_those_of_the_generator_alone(cls: type[Transform]) -> None:
    transform, x, y = cls(IMAGE, CLASSES), images(8), torch.arange(8) % 3
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (transform(x.clone(), y, draws(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.is_contiguous()


def test_cutout_wipes_a_square_around_each_centre() -> None:
    """Catches one place for all images, squares moved inside the border, the whole side for half of it."""
    after, _ = Cutout(IMAGE, CLASSES)(torch.ones(600, *IMAGE.shape), torch.zeros(600), draws())
    found = set()
    for image in after:
        assert torch.equal(image[0], image[1])
        rows, columns = (((image[0] == 0).any(axis)).nonzero().flatten().tolist() for axis in (1, 0))
        assert int((image[0] == 0).sum()) == len(rows) * len(columns)
        for at, size in ((rows, 16), (columns, 24)):
            assert at == list(range(at[0], at[-1] + 1))
            assert len(at) == 8 or (at[0] == 0 and len(at) >= 4) or (at[-1] == size - 1 and len(at) >= 4)
        found.add((rows[0], rows[-1], columns[0], columns[-1]))
    assert len(found) > 200


@pytest.mark.parametrize("cls", [Mixup, CutMix])
@pytest.mark.parametrize("soft", [False, True])
def test_mixing_is_the_mean_of_two_images_and_of_their_labels(cls: type[Transform], soft: bool) -> None:
    """Pixel by pixel. Catches labels by the drawn lam in place of the pasted area, the partner's share exchanged, and
    labels of another partner than the image's.
    """
    x = torch.stack([torch.full(IMAGE.shape, float(k)) for k in range(1, 10)])
    y = torch.eye(9)[torch.arange(9)] if soft else torch.arange(9)
    output = Output("class probabilities" if soft else "classes", 9)
    assert cls.labels(output) == Output("class probabilities", 9)
    own_shares = set()
    for seed in range(20):
        after, labels = cls(IMAGE, output)(x.clone(), y, draws(seed))
        assert labels.sum(1).allclose(torch.ones(9))
        for k, (image, label) in enumerate(zip(after, labels, strict=True)):
            expected = float((label * torch.arange(1.0, 10)).sum())
            assert float(image.mean()) == pytest.approx(expected, abs=1e-4)
            assert int((label > 0).sum()) <= 2
            if int((label > 0).sum()) == 2:
                assert label[k] > 0
                own_shares.add(round(float(label[k]), 4))
            if cls is CutMix:
                assert set(image.unique().tolist()) <= {float(c + 1) for c in label.nonzero().flatten().tolist()}
    assert len(own_shares) > 10
    assert min(own_shares) < 0.4 < 0.6 < max(own_shares)


def test_whole_and_empty_boxes() -> None:
    """lam = 1 leaves image and one-hot label to the bit; lam = 0 with the box in the middle is the other image."""

    class At(CutMix):
        lam = 1.0

        def partners(self, x: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
            return torch.arange(len(x)).flip(0), torch.tensor(self.lam)

    x, y = images(4), torch.tensor([0, 1, 2, 0])
    after, labels = At(IMAGE, CLASSES)(x.clone(), y, draws())
    assert torch.equal(after, x)
    assert torch.equal(labels, torch.eye(3)[y])
    out = torch.randn(4, 3)
    loss = CrossEntropy(Output("class probabilities", 3)).loss(out, labels)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(out, y))


def test_mixing_skips_rules_of_single_labels(tmp_path: Path) -> None:
    runs = planned(methods=["backprop", "forward-forward"], transforms=["mixup"])
    shape = outline(CATALOG.dataset("digits"), data_dir=None, val_fraction=0.1)
    reasons = {run.spec.method: refusal(run.spec, run.load(), shape) for run in runs}
    assert reasons == {
        "backprop": None,
        "forward-forward": "forward-forward learns classes, not class probabilities",
    }


class Mixed(Transform):
    """Labels become distributions: half of the next image's."""

    name = "mixed"
    takes: ClassVar[tuple[InputKind, ...]] = ("image",)
    judged = ("classes",)

    @classmethod
    def labels(cls, outputs: Output) -> Output:
        return Output("class probabilities", outputs.size)

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        share = torch.nn.functional.one_hot(y, self.outputs.size).float()
        return (x + x.roll(1, 0)) / 2, (share + share.roll(1, 0)) / 2


@pytest.mark.parametrize(
    ("names", "given", "line"),
    [
        (("flip",), Input.vector(4), "the transform flip is made for image; mine has vector; leave it out"),
        (("crop", "crop"), IMAGE, "transforms: crop, crop: name each once"),
        (("cropp",), IMAGE, "unknown transform 'cropp'.*crop"),
    ],
)
def test_what_does_not_suit_is_refused(names: tuple[str, ...], given: Input, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        fitting(names, "mine", given, CLASSES, CATALOG)


def planned(**values: Any) -> list[Run]:
    asked = resolve(None, None, {"methods": ["backprop", "forward-gradient"], "net": "mlp", **values}, [])
    datasets = {name: outline(CATALOG.dataset(name), data_dir=None, val_fraction=0.1) for name in asked.datasets}
    return plan(asked, CATALOG, device="cpu", datasets=datasets)


def test_transforms_are_part_of_a_run_and_leave_others_their_identity() -> None:
    plain, flipped, both, turned = (
        planned(transforms=names)[0] for names in ([], ["flip"], ["flip", "crop"], ["crop", "flip"])
    )
    assert len({run.spec.run_id for run in (plain, flipped, both, turned)}) == 4
    assert both.load().transforms == (Flip, Crop)
    assert "transforms" not in plain.spec.model_dump(exclude_defaults=True)


def test_a_plugin_s_transform_is_known_by_its_source(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = (
        "from bench import Transform, register\n\n\n@register\nclass Mine(Transform):\n    name = 'mine'\n"
        "    takes = ('image',)\n\n    def __call__(self, x, y, draws):\n        return x * 2, y\n"
    )
    found = []
    for source in (text, text.replace("2", "3")):
        file.write_text(source)
        catalog = Catalog([file])
        asked = resolve(None, None, {"methods": ["backprop"], "transforms": ["mine"]}, [])
        outlines = {"digits": outline(catalog.dataset("digits"), data_dir=None, val_fraction=0.1)}
        (run,) = plan(asked, catalog, device="cpu", datasets=outlines)
        found.append(run.spec)
    assert list(found[0].transformed_by) == ["mine"]
    assert found[0].run_id != found[1].run_id


def watch(session: Watched, kept: list[Tensor]) -> None:
    """Keep the inputs of all training steps."""
    step = session.run.method.train_step

    def watched(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        kept.append(batch.x.clone())
        return step(batch, progress)

    session.run.method.train_step = watched  # type: ignore[method-assign]


def seen(folder: Path, method: str, *transforms: str) -> Tensor:
    """The inputs that a rule is handed in an epoch."""
    kept: list[Tensor] = []
    wanted = spec(method, epochs=1, transforms=transforms)
    session, _ = start(folder, wanted, meddle=lambda session: watch(session, kept))
    assert session.go()["status"] == "ok"
    return torch.stack(kept)


def test_every_rule_sees_the_same_transformed_batches(tmp_path: Path) -> None:
    one, other = (seen(tmp_path / method, method, "flip", "crop") for method in ("backprop", "forward-gradient"))
    assert torch.equal(one, other)
    plain = seen(tmp_path / "plain", "backprop")
    assert not torch.equal(one, plain)
    assert one[0].square().sum() < plain[0].square().sum() * 1.05, "the same images, part of which is cut off"


def test_a_resumed_run_goes_on_with_its_draws(tmp_path: Path) -> None:
    wanted = spec(transforms=("crop",))
    whole, _ = start(tmp_path / "whole", wanted)
    assert whole.go()["status"] == "ok"
    stopped, _ = start(tmp_path / "parts", wanted, meddle=lambda session: stop_at_step(session, 4))
    assert stopped.go()["status"] == "interrupted"
    resumed, _ = start(tmp_path / "parts", wanted)
    assert resumed.go()["status"] == "ok"
    for a, b in zip(tensors(resumed.run.method), tensors(whole.run.method), strict=True):
        assert torch.equal(a, b)


def test_a_look_between_epochs_moves_no_draw(tmp_path: Path) -> None:
    session, _ = start(tmp_path, spec(transforms=("crop",), instruments=("alignment",), epochs=1))
    plain, _ = start(tmp_path / "plain", spec(transforms=("crop",), epochs=1))
    assert session.go()["status"] == plain.go()["status"] == "ok"
    for a, b in zip(tensors(session.run.method), tensors(plain.run.method), strict=True):
        assert torch.equal(a, b)


def test_classes_may_become_distributions_in_training_alone(tmp_path: Path) -> None:
    session, _ = start(tmp_path, spec(epochs=1))
    session.parts = replace(session.parts, transforms=(Mixed,))
    kept: list[Tensor] = []
    session.meddle = lambda session: watch(session, kept)  # type: ignore[method-assign]
    assert session.go()["status"] == "ok"
    assert session.run.task.output == Output("class probabilities", 10)
    assert session.run.next_batch().y.sum(1).allclose(torch.ones(128))
    assert session.run.val.batch(torch.arange(3)).y.dtype == torch.int64
