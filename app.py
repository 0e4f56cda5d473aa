"""Forcing-KV Studio: `python app.py`, then open the address that it prints."""

import _signal  # what `signal` wraps, without the time that its import takes
import os

if __name__ == "__main__":
    # nothing needs to be put in order while modules are imported
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

import sys

from fkv.runtime import studio

if __name__ == "__main__":
    sys.exit(studio())
