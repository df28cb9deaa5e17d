"""Registered models: versions, the gate before promotion, rollback."""
