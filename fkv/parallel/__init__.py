"""Several things at once: streams in lockstep or as rows of one pass, decoding beside generation, jobs over a Ray cluster."""
