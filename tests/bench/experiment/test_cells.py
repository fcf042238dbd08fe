"""Every rule on every net that the matrix allows takes steps on vectors, sequences and tokens, and predicts."""

import pytest
import torch

from bench import Batch, Input, Output, Progress, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.experiment.judging import OBJECTIVES
from bench.experiment.matrix import why_not
from bench.metrics.accuracy import Accuracy

CATALOG = Catalog()
VECTOR, SEQUENCE, TOKENS = Input.vector(6), Input.sequence(5, 4), Input.tokens(6, 9)
FOUR, SHARES, VALUES = Output.classes(4), Output("class probabilities", 4), Output.values(2)
NEXT = Output("next token", 9, 6)
CASES = [
    (TOKENS, NEXT),
    *((given, output) for given in (VECTOR, SEQUENCE, TOKENS) for output in (FOUR, SHARES, VALUES)),
]


@pytest.mark.parametrize(("given", "output"), CASES, ids=str)
def test_allowed_cells_learn_and_predict(given: Input, output: Output) -> None:
    """Catches heads that flatten positions, gradients of another shape, predictions of another kind of output."""
    objective = CATALOG.objectives[OBJECTIVES[output.kind]].load()(output)
    found = []
    for name in sorted(CATALOG.methods):
        for place in sorted(CATALOG.nets):
            cls, net = CATALOG.methods[name].load(), CATALOG.nets[place].load()
            if why_not(cls, net, given, output, objective) is None:
                steps(cls, Task("made up", given, output, objective, 1000, net, net.small, None, (Accuracy,)))
                found.append((name, place))
    assert ("backprop", "transformer" if given is TOKENS else "mlp") in found
    assert len(found) >= 10


def steps(cls: type, task: Task) -> None:
    x, y = task.input.draw(16), task.output.draw(16)
    seeds = Seeds(0, "cpu", method=cls.info.name)
    method = cls(task, cls.Config(), device=torch.device("cpu"), seeds=seeds)
    for k in range(2):
        assert method.train_step(Batch(x, y), Progress(k, 100, 0))["loss"].isfinite()
    method.prepare_for_eval()
    noise = [seeds.inference] if method.claims().stochastic_inference else []
    out = method.predict(x, *noise)
    assert out.shape == (16, *task.output.shape)
    assert out.isfinite().all()
