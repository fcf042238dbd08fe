"""Settings of the whole process that a stranger's file may change when it is imported, put back afterwards."""

import contextlib
import os
import random
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Restore torch's defaults, threads and precision, the global generators, warning filters, the working folder."""
    import numpy as np
    import torch

    device, dtype, threads = torch.get_default_device(), torch.get_default_dtype(), torch.get_num_threads()
    grad, matmul = torch.is_grad_enabled(), torch.get_float32_matmul_precision()
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    anomaly, printed = torch.is_anomaly_enabled(), np.get_printoptions()
    drawn, drawn_np, drawn_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    errors, folder = np.geterr(), os.getcwd()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.set_float32_matmul_precision(matmul)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.autograd.set_detect_anomaly(anomaly)
        random.setstate(drawn)
        np.random.set_state(drawn_np)
        torch.set_rng_state(drawn_torch)
        np.seterr(**errors)
        np.set_printoptions(**printed)
        if os.getcwd() != folder:
            os.chdir(folder)
