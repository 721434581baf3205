"""Values to bytes and back: versioned, checked, and bounded before anything is allocated.

Nothing here opens a file.
"""
