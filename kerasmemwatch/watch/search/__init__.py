"""Searches for causes of growth while a program runs: when to look, and what to look at next.

What looks find is in ``kerasmemwatch.leaks.evidence``; what it means, in ``kerasmemwatch.leaks.causes``.
"""
