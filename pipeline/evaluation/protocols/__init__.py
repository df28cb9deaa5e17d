"""Scores of predictions under each benchmark protocol (das/metrics) on prepared data."""
