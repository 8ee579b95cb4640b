"""Step ``evaluate``: the challenger wins, loses, or it cannot be told."""
