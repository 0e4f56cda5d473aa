"""Agents that settle a question by debate, after S2-MAD: `engine` is the protocol, `jury` and `director` its uses."""
