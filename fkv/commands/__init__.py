"""Commands of `python -m fkv`, one a file: `add_arguments` says what a command takes, `run` does it and returns its exit status."""
