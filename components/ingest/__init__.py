"""Step ``ingest``: rows of the planned windows into an immutable snapshot."""
