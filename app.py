"""Forcing-KV Studio: `python app.py`, then open the address that it prints."""

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, lambda *_: os._exit(130)
    )  # nothing needs to be put in order while modules are imported

from fkv.runtime import studio

if __name__ == "__main__":
    sys.exit(studio())
