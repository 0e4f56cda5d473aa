"""Several things at once: streams in lockstep or as rows of one pass, decoding beside generation, work over Ray."""
