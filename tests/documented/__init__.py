"""The commands that the project prints for its users: where they stand, and a place in which each of them is run."""
