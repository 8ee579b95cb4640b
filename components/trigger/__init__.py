"""Step ``trigger``: retrain or not, and why."""
