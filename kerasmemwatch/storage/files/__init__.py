"""File access: local and remote files, locks, event files, the memory-mapped journal.

Nothing here knows about the contents of a run beyond its rows.
"""
