"""How the tiny model was trained: `codec` first, then `generator`. Both resume from their last checkpoint."""
