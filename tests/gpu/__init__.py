"""All checks and measurements of a machine with a GPU in one command: `python -m tests.gpu`."""
