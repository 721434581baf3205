"""Values to bytes and back: versioned, checked, bounded before anything is allocated.

Nothing here opens a file.
"""
