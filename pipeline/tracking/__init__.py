"""MLflow runs: what a job reports, kept on disk until the server has it."""
