"""Where a recording goes: one destination a module."""
