"""Step ``prepare``: train, valid, test and guard rows without a leak, embedded once."""
