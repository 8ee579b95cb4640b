"""The graphs, how they run, and the commands."""
