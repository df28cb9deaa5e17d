"""What the official release does differently in units and weight files; docs/release.md lists all of it."""
