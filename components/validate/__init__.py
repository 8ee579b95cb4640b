"""Step ``validate``: bad rows into quarantine, the rest onwards."""
