"""`das prepare`: original data to Parquet shards with a manifest, in Ray tasks."""
