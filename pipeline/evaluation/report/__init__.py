"""The HTML page of one evaluation."""
