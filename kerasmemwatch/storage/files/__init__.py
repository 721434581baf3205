"""Files as such: local and remote ones, locks, event files, the memory-mapped journal.

Nothing here knows what a run is made of beyond its rows.
"""
