"""Readers of original data sets, one module (or a few of the same prefix) each; none imports Ray."""
