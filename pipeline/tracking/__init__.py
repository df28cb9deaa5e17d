"""MLflow runs: what a job logs, kept in files until the server has it."""
