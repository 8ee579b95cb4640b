"""Step ``choose``: take the best trial of a search."""
