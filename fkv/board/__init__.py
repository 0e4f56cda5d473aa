"""The board: cache rules on one protocol, with what each reads, holds and costs, and intervals over prompts.

It reuses `fkv.analysis`: its measures, jobs and bootstrap. One JSON file is one rule (`result`), a folder of them is a
board (`table`).
"""
