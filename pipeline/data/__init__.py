"""Prepared data: rows, Parquet shards, manifests, splits; sources, conversion, checks and pictures below."""
