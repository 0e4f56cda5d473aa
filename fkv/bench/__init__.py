"""Speed and memory, against what the same machine can do in the same run."""
