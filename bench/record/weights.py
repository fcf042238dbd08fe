"""weights.safetensors: what a run has learnt, as `Method.state_dict` gives it. Nothing is pickled.

Tensors have the dotted names of their places, so that any reader of safetensors can take `net.*` from the file. The
file's metadata have an entry `bench`, JSON of the run's id and of `structure`, how tensors and plain values are nested:

    null, true, 1, 0.5, "text"    a plain value
    {"tensor": NAME}              a tensor of the file
    {"list": [...]}, {"tuple": [...]}, {"dict": [[KEY, VALUE], ...]}
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.api.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor

BENCH = "bench"  # the entry of the metadata
HEAD = 8  # bytes that give the length of a file's JSON head
PLAIN = (bool, int, float, str)


def to_bytes(state: Mapping[str, Any], run_id: str) -> bytes:
    """The file. Raises: MethodError where the state holds something else than tensors and plain values."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    structure = _flatten(dict(state), "", tensors)
    metadata = {BENCH: json.dumps({"run_id": run_id, "structure": structure})}  # one entry: several have no fixed order
    # copies: tensors that share their memory, as tied weights do, are refused
    return save({name: of.detach().cpu().contiguous().clone() for name, of in tensors.items()}, metadata)


def from_bytes(data: bytes, run_id: str) -> dict[str, Any]:
    """The state, its tensors on the CPU. Raises: ValueError where the file is damaged or of another run."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        metadata = json.loads(data[HEAD : HEAD + int.from_bytes(data[:HEAD], "little")])["__metadata__"]
        held = json.loads(metadata[BENCH])
        if held["run_id"] != run_id:
            raise ValueError(f"it is of run {held['run_id']}")
        state: Any = _nested(held["structure"], tensors)
    except (SafetensorError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(state, dict):
        raise ValueError("its structure is no mapping")
    return state


def check(state: Mapping[str, Any]) -> None:
    """Raises: MethodError where `to_bytes` would."""
    _flatten(dict(state), "", {})


def _flatten(value: Any, name: str, tensors: "dict[str, Tensor]") -> Any:
    import torch

    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise MethodError(
                f"state_dict() has a sparse or quantised tensor in '{name}', which cannot be kept as weights"
            )
        while name in tensors:
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [(_key(key, name), _flatten(of, _below(name, key), tensors)) for key, of in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_flatten(of, _below(name, k), tensors) for k, of in enumerate(value)]}
    raise MethodError(
        f"state_dict() has a {type(value).__name__} in '{name}', which cannot be kept as weights; use tensors, "
        "numbers, text, lists and mappings"
    )


def _key(key: object, name: str) -> object:
    if key is not None and type(key) not in PLAIN:
        raise MethodError(f"state_dict() has a key of type {type(key).__name__} in '{name}'; use text or numbers")
    return key


def _below(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _nested(structure: Any, tensors: "Mapping[str, Tensor]") -> Any:
    if not isinstance(structure, dict):
        return structure
    ((kind, of),) = structure.items()
    if kind == "tensor":
        return tensors[of]
    if kind == "dict":
        return {key: _nested(value, tensors) for key, value in of}
    several: Iterable[Any] = (_nested(value, tensors) for value in of)
    return {"list": list, "tuple": tuple}[kind](several)
