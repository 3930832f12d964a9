"""Tables on disk: what goes through Parquet files a piece at a time."""
