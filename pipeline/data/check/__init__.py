"""`das doctor data`: what is there of original data, what is missing or broken."""
