"""The command `fgdiag`, and the report it writes."""
