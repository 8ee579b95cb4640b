"""Step ``summarize``: a part of production's window in little, so that parts can be merged."""
