"""The method's state after its best epoch, kept until it is tested."""

import io
import tempfile
import weakref
from collections.abc import Mapping
from typing import IO, Any

import torch

from bench.api.errors import StoreError
from bench.api.method import Method
from bench.record.files import cause


class Best:
    """A state in a file without a name: in memory it would count as training's, and a kill leaves nothing behind."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def keep(self, state: Mapping[str, Any]) -> None:
        """In place of the one before. Raises: StoreError where there is no room."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as this lives)
                weakref.finalize(self, self._file.close)
            self._file.seek(0)
            self._file.truncate()
            self._file.write(buffer.getbuffer())
            self._file.flush()
        except OSError as error:
            raise StoreError(f"cannot keep the best state in {tempfile.gettempdir()}: {cause(error)}") from error

    def state(self) -> dict[str, Any] | None:
        """The state, its tensors on the CPU; None where none was kept."""
        if self._file is None:
            return None
        self._file.seek(0)
        state: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        return state

    def restore(self, method: Method) -> None:
        """Put the method where it was, ready to predict: getting ready was charged to training at that epoch."""
        state = self.state()
        if state is not None:
            method.load_state_dict(state)
            method.prepare_for_eval()
