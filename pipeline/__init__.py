"""Distributed runs around the model: data, training, sweeps, evaluation, registry."""
