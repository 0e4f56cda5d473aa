"""Many streams from one file: what several of them have in common is computed once.

After BatchLLM (arXiv 2412.03594), with chunks in place of tokens: jobs to a prefix tree, the tree to streams that fork,
streams to rows of a pass, as many as the memory for K and V allows.
"""
