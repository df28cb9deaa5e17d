"""Readers of original data sets, one module each; none imports Ray."""
