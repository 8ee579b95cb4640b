"""Step ``resolve``: every read of outside state, once."""
