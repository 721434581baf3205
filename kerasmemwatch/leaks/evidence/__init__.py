"""What live objects tell of growth: who holds tensors, arrays, models and graphs, and from which name of the user's.

Looks are dear and taken on suspicion only. Nothing here keeps an object alive after a look, or judges what it found.
"""
