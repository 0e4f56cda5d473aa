"""Independent jobs over the devices of a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MAX_RETRIES = 3  # how often a job whose worker died is given to another


def over_ray(function: Callable[..., Any], jobs: Iterable[tuple], address: str, device: str = "cpu") -> Iterator[Any]:
    """Call a function with every job, one at a time per device of a Ray cluster.

    A worker process keeps what `function` caches from job to job.

    Args:
        function: Called as `function(*job)`; what it raises is raised here.
        jobs: Arguments of the calls.
        address: Of a running cluster on whose machines this project is installed, or "local" for one on this machine.
        device: That a job needs, `cpu` or `cuda`.

    Yields:
        The results, in the order in which they are ready.

    Raises:
        ValueError: Ray is missing, no cluster answers, or a job's workers die again and again.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("spreading work needs Ray; install it with: pip install ray") from None
    if address not in ("local", "auto"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(
                f"no Ray cluster answers at {address!r} ({error}); name it as HOST:PORT, or local"
            ) from None
    local: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    where = local if address == "local" else {"address": address}
    try:
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]})") from None
    try:
        remote = ray.remote(num_cpus=1, num_gpus=int(device.startswith("cuda")), max_retries=MAX_RETRIES)(function)
        waiting = [remote.remote(*job) for job in jobs]
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(done)
    except ray.exceptions.RayTaskError as error:  # whose own text is a traceback
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        raise ValueError(f"a job's worker was lost {MAX_RETRIES + 1} times; is there enough memory?") from None
    finally:
        ray.shutdown()
