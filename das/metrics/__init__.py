"""Every benchmark protocol as a function of arrays, with its source; bootstrap intervals."""
