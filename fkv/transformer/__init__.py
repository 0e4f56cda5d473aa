"""The Wan transformer on the paged cache: blocks, attention, coordinates, CUDA graphs."""
