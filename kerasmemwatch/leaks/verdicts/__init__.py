"""Whether a series of memory grows: pure functions from arrays to a ``Growth``, with numpy only.

Text, tile, tab, page, JSON and ``MemoryBudget`` say what ``judge`` says. Nothing here looks at live objects.
"""
