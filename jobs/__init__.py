"""Executable scripts, one per thing a person submits."""
