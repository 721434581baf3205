"""``MemoryTape``, and the session that a tape makes for itself.

Nothing here changes a gradient.
"""
