"""The timeline of a run: which change comes before which chunk, as the page, the command line and permalinks write it.

One change a line, each with the number of its chunk:

    6: a blue star drifting over the sea       another prompt (or `prompt = ...`)
    9: re-cache = a pink box in the city       another prompt, and the cache recomputed under it
    11: cut = a green heart over the hills     another prompt, and another scene where the policy knows cuts
    12: A = sliding-window                     another policy for one stream
    15: threshold = 0.7                        other head roles: static from that score on
    16: heads = 3.2 dynamic, 5.1 static        other roles of single heads, each as layer.head
    17: steps = 2                              fewer denoising steps
    18: flush                                  the cache forgets all but the first frame and the two newest
    21: cut                                    another scene under the same prompt, where the policy knows cuts

Or scenes, each a prompt with its duration in seconds of video (`[10s]`) or in chunks (`[12]` or `[12c]`):

    a red ball over the hills [10s] | the same ball at night [10s#]

Seconds are rounded up to whole chunks, scene by scene. `#` marks a hard cut into the scene. Under a policy that knows
no cuts the prompt changes without one, as a line without re-cache does; report and page call the change a cut.

Text counts chunks from 1, as the page's timeline does; a `Cue`, like the `index` of JSON reports, counts from 0.

| file | |
|-|-|
| `changes` | what a change does to running streams |
| `timeline` | the changes of a run, in order |
| `lines` | a change as a line |
| `text` | a storyboard as lines or scenes |
| `told` | what was changed in a run, as lines |
"""

from .changes import (
    STREAM,
    Change,
    Cut,
    Flush,
    SetHeads,
    SetPolicy,
    SetPrompt,
    SetRoles,
    SetSteps,
    SetThreshold,
    SilenceHead,
    Streams,
    at_threshold,
)
from .lines import write_change
from .text import ANY_ROLES, at_chunk, check, has_scenes, parse, write
from .timeline import NO_STORY, Cue, Storyboard
from .told import happened

__all__ = [
    "ANY_ROLES",
    "NO_STORY",
    "STREAM",
    "Change",
    "Cue",
    "Cut",
    "Flush",
    "SetHeads",
    "SetPolicy",
    "SetPrompt",
    "SetRoles",
    "SetSteps",
    "SetThreshold",
    "SilenceHead",
    "Storyboard",
    "Streams",
    "at_chunk",
    "at_threshold",
    "check",
    "happened",
    "has_scenes",
    "parse",
    "write",
    "write_change",
]
