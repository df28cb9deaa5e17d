"""One training on Ray, and sweeps of trainings."""
