"""Shared by all rooms: files, Ray, the MLflow client, tables, images and HTML pages."""
