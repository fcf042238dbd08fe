"""Reverse mode seen at its one door, the engine of torch.autograd: how far it carries a gradient.

Reach is read off the graph that each engine call is about to walk. A node with several inputs that need a
gradient (a product, a convolution, a normalisation) hands to each of them a gradient that was formed with the
others, so the owners of the parameters on its sides are joined: backprop joins a layer's weight with whatever
lies under its input. Sums join nothing, hence several local losses may be added up and sent back at once.

Not seen: derivatives written out by hand without autograd, also from layer to layer, and what lies inside a
re-entrant activation checkpoint. A leaf that holds the weights of several layers counts as one layer.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations, product
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd import graph
from torch.autograd.graph import GradientEdge, Node

from bench.api.column import Column, Value
from bench.api.instrument import Probe, Reading
from bench.api.method import Method, Reach
from bench.audit.parts import held, layers
from bench.catalog.register import register

REACHES: tuple[Reach, ...] = ("none", "layer", "block", "network")

# nodes whose inputs do not enter each other's gradient, or only by their difference
ADDITIVE = frozenset(
    f"{name}Backward{k}"
    for name in ("Add", "Sub", "Rsub", "Stack", "Cat", "MseLoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
    for k in (0, 1)
)

End = Tensor | GradientEdge
Observer = Callable[[Sequence[End], Sequence[End]], None]


@register
class ReverseMode(Probe):
    """The reach of reverse mode in one training step, measured."""

    name = "reverse-mode"
    rank: ClassVar[int] = 61
    columns = (
        Column(
            "reverse_mode", "reverse mode",
            "how far reverse-mode differentiation carried a gradient in a training step, measured",
            shown="page", text=True,
        ),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with reaching(method) as measured:
            yield lambda: {"reverse_mode": measured()}

    def over_phases(self, readings: Sequence[tuple[int, Mapping[str, Value]]]) -> Mapping[str, Value]:
        """The farthest."""
        found = {of["reverse_mode"] for _, of in readings}
        return {"reverse_mode": max((reach for reach in REACHES if reach in found), key=REACHES.index)}


class Owner(NamedTuple):
    """Where a parameter lives. block is None for one that belongs to no block or to several."""

    layer: int
    block: int | None


@contextmanager
def observed(observe: Observer) -> Iterator[None]:
    """Call observe(roots, inputs) before each engine call, in whatever thread it is made.

    Empty inputs mean all leaves. Source: both names through which torch 2.9 to 2.15 reach the engine; they
    are private, so tests hold a canary.
    """
    engine = graph._engine_run_backward
    turn = threading.Lock()

    def run(t_outputs: Sequence[End], *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        inputs = args[3] if len(args) > 3 else kwargs.get("inputs", ())
        with turn:
            observe(t_outputs, inputs or ())
        return engine(t_outputs, *args, **kwargs)

    _install(run)
    try:
        yield
    finally:
        _install(engine)


def _install(engine: Callable[..., tuple[Tensor, ...]]) -> None:
    for module in (graph, torch.autograd):
        setattr(module, "_engine_run_backward", engine)  # noqa: B010  (a plain assignment is ill-typed)


def reach(method: Method, train: Callable[[], object]) -> Reach:
    """How far reverse mode carries a gradient while `train` runs, at most; see `reaching`."""
    with reaching(method) as measured:
        train()
    return measured()


@contextmanager
def reaching(method: Method) -> Iterator[Callable[[], Reach]]:
    """Gives how far reverse mode carries a gradient inside, at most.

    `layer`: no two layers are joined; `block`: layers are, blocks are not; `network`: blocks are, or layers
    are in a method that has fewer than two blocks. Parameters outside of all blocks join no blocks.
    """
    found: list[Reach] = ["none"]
    owners = _owners(method)
    bounded = len(method.blocks()) > 1

    def note(roots: Sequence[End], inputs: Sequence[End]) -> None:
        found.append("layer")
        for one, other in _joined(roots, inputs, owners):
            if one.layer != other.layer:
                apart = None not in (one.block, other.block) and one.block != other.block
                found.append("network" if apart or not bounded else "block")

    with observed(note):
        yield lambda: max(found, key=REACHES.index)


def _owners(method: Method) -> dict[int, Owner]:
    """The owner of each parameter, by address: a detached alias of a weight is still that weight."""
    blocks: dict[int, set[int]] = {}
    for k, block in enumerate(method.blocks()):
        for p in block.parameters():
            blocks.setdefault(p.data_ptr(), set()).add(k)
    loose = {part.data_ptr(): Owner(id(part), None) for part in held(method) if isinstance(part, Tensor)}
    owned = {
        p.data_ptr(): Owner(id(layer), k if not rest else None)
        for layer in layers(method)
        for p in layer.parameters(recurse=False)
        for k, *rest in [blocks.get(p.data_ptr(), {None})]
    }
    return loose | owned


def _joined(roots: Sequence[End], inputs: Sequence[End], owners: Mapping[int, Owner]) -> Iterator[tuple[Owner, Owner]]:
    """Pairs of owners between which the coming engine call carries a gradient."""
    wanted = {(edge.node, edge.output_nr) for edge in map(_edge, inputs)}
    running: set[Node] = set()  # nodes that a gradient will pass
    # the owners that it meets from a node on; where none passes, the owner of a lone weight
    below: dict[Node, frozenset[Owner]] = {}

    def asked_for(child: Node, nr: int) -> bool:
        return (child, nr) in wanted if wanted else _is_leaf(child)

    for node in _children_first([_edge(root).node for root in roots]):
        if _is_leaf(node):
            owner = owners.get(_address(node.variable))  # type: ignore[attr-defined]
            below[node] = frozenset(() if owner is None else (owner,))
            continue
        edges = {(child, nr) for child, nr in node.next_functions if child is not None}
        if any(child in running or asked_for(child, nr) for child, nr in edges):
            running.add(node)
        elif len(node.next_functions) > 1:
            below[node] = frozenset()  # a value computed from several: as a factor it is no layer's weight
            continue
        # what is asked for ends the path, so that what lies beneath it is not met
        ends = [frozenset[Owner]() if asked_for(*edge) and not _is_leaf(edge[0]) else below[edge[0]] for edge in edges]
        below[node] = frozenset[Owner]().union(*ends)
        if node in running and node.name() not in ADDITIVE:
            for one_end, other_end in combinations(ends, 2):
                yield from product(one_end, other_end)


def _is_leaf(node: Node) -> bool:
    return node.name() == "torch::autograd::AccumulateGrad"


def _children_first(roots: Sequence[Node]) -> Iterator[Node]:
    """Each node of the graph once, after all nodes beneath it; without recursion, for graphs are deep."""
    seen: set[Node] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in node.next_functions if child is not None)


def _edge(end: End) -> GradientEdge:
    return end if isinstance(end, GradientEdge) else graph.get_gradient_edge(end)


def _address(leaf: Tensor) -> int:
    """Where a leaf's values lie, also if torch.func has wrapped it."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(leaf):
        leaf = functorch.get_unwrapped(leaf)
    return leaf.data_ptr()
