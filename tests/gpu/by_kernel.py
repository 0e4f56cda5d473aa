"""Where the time of one chunk goes: the device's kernels by name."""

from __future__ import annotations

from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from fkv import policies
from fkv.bench.streams import CAPTURE_CHUNKS, prepare
from fkv.bench.work import seconds
from fkv.models.base import VideoModel

MOST = 40  # kernels that are listed


def measure(model: VideoModel, policy: str, context: int) -> dict[str, Any]:
    """Profile a chunk in the middle of a stream.

    Args:
        model: What generates.
        policy: Of the stream.
        context: Latent frames that the chunk attends to under `full`.

    Returns:
        `wall_s` of the chunk without the profiler; `device_s`, the sum over its kernels (on a CPU: operators); and
        `kernels`, the longest first, each with `name`, `calls` and `seconds`.
    """
    device = model.device
    stream = prepare(model, policies.parse(policy), context, decode=False)
    snapshot = stream.snapshot()

    def once() -> None:
        stream.restore(snapshot)
        stream.step()

    for _ in range(CAPTURE_CHUNKS + 1):
        once()
    wall = min(seconds(once, device) for _ in range(3))
    on_gpu = device.type == "cuda"
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        seconds(once, device)
    own = DeviceType.CUDA if on_gpu else DeviceType.CPU
    kernels = [
        {
            "name": event.key,
            "calls": event.count,
            "seconds": (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6,
        }
        for event in seen.key_averages()
        if event.device_type == own
    ]
    kernels.sort(key=lambda kernel: -kernel["seconds"])
    return {"wall_s": wall, "device_s": sum(kernel["seconds"] for kernel in kernels), "kernels": kernels[:MOST]}
