"""Inventories of original data for `das doctor data`, one module a data source."""
