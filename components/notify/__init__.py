"""Step ``notify``: how the run ended, for people and for programs."""
