"""The Wan transformer on the paged cache: blocks, RoPE coordinates, recorded passes."""
