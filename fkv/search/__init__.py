"""Several futures of one stream, of which a search keeps what is worth it: a tree whose nodes are chunks."""
