"""What a training takes: its first steps alone (`--dry-run`), and where the time of a step goes (`--profile`)."""
