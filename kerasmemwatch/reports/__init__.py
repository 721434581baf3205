"""Findings for people, as text, HTML and figures.

Nothing here judges: whatever is computed belongs to ``analysis``.
"""
