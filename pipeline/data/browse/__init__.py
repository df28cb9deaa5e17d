"""`das data`: statistics and pictures of prepared data."""
