"""One live generation: `Stream.step()` generates the next chunk and returns everything there is to know about it.

| module | |
|-|-|
| `stream` | `Stream`: how a chunk is generated, and forks |
| `state` | what a stream carries from chunk to chunk |
| `passes` | the passes of a chunk, and what the policy decides in each |
| `changes` | changes of prompt, policy, roles and steps while it runs; flush and cut |
| `recache` | earlier chunks computed anew |
| `snapshot` | where a stream stands, to generate the same chunk again |
| `chunk` | `Chunk`, its `Timings` and the video of several |
| `limits` | prompts, seeds and numbers of chunks that are taken |
"""

from .chunk import STAGES, Chunk, Timings, video_of
from .limits import MAX_CHUNKS, MAX_PROMPT, MAX_SEED, check_chunks, check_prompt, check_seed
from .snapshot import Snapshot
from .stream import Stream

__all__ = [
    "MAX_CHUNKS",
    "MAX_PROMPT",
    "MAX_SEED",
    "STAGES",
    "Chunk",
    "Snapshot",
    "Stream",
    "Timings",
    "check_chunks",
    "check_prompt",
    "check_seed",
    "video_of",
]
