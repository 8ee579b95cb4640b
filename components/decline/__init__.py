"""Step ``decline``: say why a run trains nothing."""
