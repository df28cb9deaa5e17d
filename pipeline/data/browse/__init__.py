"""`das data stats` and `das data show`: statistics and pictures of prepared data."""
