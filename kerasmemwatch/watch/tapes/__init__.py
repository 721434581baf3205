"""``MemoryTape``, and the session that a tape creates for itself.

Nothing here changes a gradient.
"""
