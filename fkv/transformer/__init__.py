"""The Wan transformer on the paged cache: passes, blocks, attention, probes, coordinates, CUDA graphs."""
