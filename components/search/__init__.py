"""Step ``search``: try hyperparameters, in one study that any number of workers share."""
