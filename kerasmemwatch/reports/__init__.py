"""Findings for people, as text, HTML and figures.

All judgements and computations belong to ``analysis``.
"""
