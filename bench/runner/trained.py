"""A method as a run left it, built again from its spec and its weights."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench import data
from bench.api.errors import ConfigError, DataError, SourceError, StoreError, shortened, unknown
from bench.api.method import Method
from bench.api.seeds import Seeds, derive
from bench.api.task import Batch, Task
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry
from bench.experiment.identity import RunSpec
from bench.experiment.judging import judges
from bench.experiment.plan import Parts
from bench.experiment.transforming import fitting
from bench.record import weights
from bench.record.reader import records
from bench.record.rows import Row, one, parsed
from bench.record.schema import CUT, WEIGHTS, WEIGHTS_SHA256
from bench.runner import compute, setup
from bench.runner.evaluate import EVAL_BATCH
from bench.runner.state import seeds_of


@dataclass(frozen=True)
class Trained:
    """A trained method, ready to predict.

    task: what it learnt. test: the test split in batches, prepared as in training. seeds: those of the run; the draw k
    of its test accuracy came from `seeds.inference` after `seeds.for_inference("test", k)`.
    """

    spec: RunSpec
    method: Method
    task: Task
    test: Iterable[Batch]
    seeds: Seeds

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """As `Method.predict`, without gradients, in the precision of the run. x: prepared as those of `test`."""
        with torch.no_grad(), compute.precision(self.spec.precision, self.seeds.device):
            return self.method.predict(x) if noise is None else self.method.predict(x, noise)


def trained(row: Row, catalog: Catalog, device: str, data_dir: Path | None, *, download: bool = False) -> Trained:
    """The method of a recorded run. device: a torch device, or `auto` for the kind that the run had, if it is here.

    Raises: StoreError without weights or where they are damaged; SourceError where the code of method or net is not the
    run's; DataError where its data are missing or others.
    """
    spec = RunSpec.model_validate({name: row.spec[name] for name in RunSpec.model_fields if name in row.spec})
    state = _state(row)
    if device == "auto":
        device = "cuda" if spec.device == "cuda" and torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    method, net = catalog.methods[spec.method], catalog.nets[spec.net]
    dataset = catalog.dataset(spec.dataset)
    loaded = data.load(dataset, data_dir=data_dir, download=download, val_fraction=spec.val_fraction)
    if loaded.fingerprint != spec.data_id:
        raise DataError(f"{spec.dataset}: the data are not those that run {row.run_id} was trained on")
    changes, learnt = fitting(spec.transforms, spec.dataset, loaded.input, loaded.output, catalog)
    objective, metrics = judges(spec, dataset.info, loaded.output, catalog, learnt)
    judged_by = tuple(metric.load() for metric in metrics)
    transforms = tuple(entry.load() for entry in changes)
    parts = Parts(method.load(), net.load(), dataset, (), objective.load(), judged_by, transforms)
    planned = {method: spec.method_source, net: spec.net_source}
    planned |= {entry: spec.judged_by[entry.name] for entry in (objective, *metrics) if entry.name in spec.judged_by}
    planned |= {entry: spec.transformed_by[entry.name] for entry in changes if entry.name in spec.transformed_by}
    for entry, source in planned.items():
        _check_source(entry, source, row)
    task = setup.task_of(spec, parts, loaded, where)
    seeds = seeds_of(spec, where)
    cut = row.summary.get(CUT) or 1
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices), compute.precision(spec.precision, where):
        torch.manual_seed(derive(spec.seed, "global"))
        made = setup.instance(spec, parts, task, where, seeds, compiled=spec.compile, micro_batches=cut)
        made.load_state_dict(state)
        made.prepare_for_eval()
    test = data.Batches(loaded.test, loaded.mean, loaded.std, where, EVAL_BATCH)
    return Trained(spec, made, task, test, seeds)


def recorded(root: Path, run_id: str) -> Row:
    """The record of a run below a folder, one with weights if there are several. Raises: ConfigError, StoreError."""
    found = records(root)
    of_run = [record for record in found if record.run_id == run_id]
    if not of_run:
        raise ConfigError(unknown("run", run_id, {record.run_id for record in found}))
    return one(next((record for record in of_run if WEIGHTS in record.names), of_run[0]))


def _state(row: Row) -> dict[str, object]:
    file = row.record.read(WEIGHTS)
    if file is None:
        raise StoreError(f"{row.record.place} has no weights; run it again with --keep-weights")
    if hashlib.sha256(file).hexdigest() != row.summary.get(WEIGHTS_SHA256):
        raise row.record.corrupt(WEIGHTS, "its hash is not that of summary.json")
    state = parsed(row.record, WEIGHTS, lambda data: weights.from_bytes(data, row.run_id))
    assert state is not None
    return state


def _check_source(entry: Entry, planned: str, row: Row) -> None:
    if entry.source_hash() != planned:
        raise SourceError(
            f"run {row.run_id} was trained by other code of {entry.name} than {shortened(entry.file)} and what it "
            "imports; go back to that code, or train again"
        )
