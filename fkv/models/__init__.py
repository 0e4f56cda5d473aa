"""Models: what there is, loading, text encoders, decoders, and whether one fits in memory."""
