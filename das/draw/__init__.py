"""Drawings: people on images and from above, and what the network computes."""
