"""Step ``score``: answer all rows of a Parquet file, one output row for each input row."""
