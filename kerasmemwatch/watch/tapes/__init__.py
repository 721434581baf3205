"""tapes."""
