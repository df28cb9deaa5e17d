"""Weights of others: models of the official release become checkpoints, and backbones the start of trainings."""
