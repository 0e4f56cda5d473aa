"""Commands of `python -m fkv`, one file each.

`add_arguments` declares a command's arguments; `run` executes it and returns its exit status. The parsed arguments stay
in this folder: the rest of fkv takes plain parameters. Libraries that load slowly are imported in `run`, so that
`fkv COMMAND --help` is quick.
"""
