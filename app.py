"""Forcing-KV Studio: `python app.py`, then open the address that it prints."""

import sys

from fkv.studio.launch import run

if __name__ == "__main__":
    sys.exit(run())
