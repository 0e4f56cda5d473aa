"""The Live tab: a file for every card of it, top to bottom, and what its runs do. The work is `studio.live`, and what
the stage draws is in `assets/studio`."""

from .controls import Controls
from .tab import live_tab

__all__ = ["Controls", "live_tab"]
