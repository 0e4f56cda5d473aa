"""Runs of visitors: the queue, the generation loop, changes made while it runs, comparisons."""
