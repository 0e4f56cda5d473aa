"""Several things at once: streams in lockstep, decoding beside generation, jobs over a Ray cluster."""
