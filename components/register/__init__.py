"""Step ``register``: the challenger becomes a version, whatever the verdict."""
