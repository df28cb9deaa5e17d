"""One module per source of data, all with the same two functions (source.py says which)."""
