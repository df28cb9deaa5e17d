"""Registered models: versions, promotion by a gate, rollback."""
