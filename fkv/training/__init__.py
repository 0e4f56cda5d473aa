"""Training of the tiny model: `codec` first, then `generator`. Both resume from their last checkpoint."""
