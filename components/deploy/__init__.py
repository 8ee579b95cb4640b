"""Step ``deploy``: prove the bundle in the server's own code, then promote it."""
