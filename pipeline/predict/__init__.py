"""`das predict`: people on photos and videos."""
