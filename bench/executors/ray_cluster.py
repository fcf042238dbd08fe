"""The connection to a Ray cluster, or to one of its own that nobody reaches from outside this machine."""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.api.errors import ConfigError
from bench.executors.importing import same_imports

ANSWER_S = 20.0  # without an answer from the cluster after which it counts as gone
PATIENCE_S = 120  # of Ray's own, after which it ends a process whose cluster is gone: later than we notice


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or to one of its own that nobody reaches from outside this machine."""
    host = (address or "").rpartition(":")[0]
    if address is not None:
        _knock(address)
    if address is None or host in ("localhost", "127.0.0.1"):
        keep_to_loopback()
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(PATIENCE_S))
    import ray

    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with same_imports(), _elsewhere():
            ray.init(
                address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,  # warnings of Ray's are of its own clusters and tokens, none of our runs
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(_no_cluster(address, error)) from error
    if threading.current_thread() is threading.main_thread():  # Ray puts handlers of its own in their place
        for number, handler in ours.items():
            signal.signal(number, handler)
    try:
        yield
    finally:
        leaving = threading.Thread(target=ray.shutdown, daemon=True)  # it may wait for a head that is gone
        leaving.start()
        leaving.join(ANSWER_S)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Work in an empty folder meanwhile: Ray puts the driver's working folder on the search path of its workers."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="bench-") as empty:
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)


def _knock(address: str) -> None:
    """Raises: ConfigError where nobody answers at HOST:PORT, for which Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def _no_cluster(address: str | None, error: Exception) -> str:
    """Why there is no connection, with the mend where somebody answers at an address and does not let us in."""
    told = " ".join(str(error).split())[:200]
    if address is None:
        return f"no Ray could be started here: {told}"
    hint = "; where its head was started with a token, as Ray does from 2.59 on, set RAY_AUTH_MODE=token"
    return f"no Ray cluster at {address}: {told}{'' if address == 'auto' else hint}"


def keep_to_loopback() -> None:
    """Ray listens on all interfaces unless it takes this machine to be no part of any cluster."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False
