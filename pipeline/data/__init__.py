"""Prepared data: rows, Parquet shards, manifests, splits; the rooms below lead to them and show them."""
