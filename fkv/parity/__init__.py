"""Golden data: replay runs recorded from the code of authors and measure the difference.

| module | |
|-|-|
| `golden` | a recorded folder: settings, inputs, weights, noise |
| `official` | runs of Forcing-KV's official code |
| `noted` | published rules with the authors' parameters, as policies that note what they decide |
| `rules` | runs of these rules |
| `measures` | differences, and whether they are within tolerances |
| `replay` | all runs of a folder as one report |
"""

from .golden import Golden, ParityError, RecordedNoise, load
from .replay import check

__all__ = ["Golden", "ParityError", "RecordedNoise", "check", "load"]
