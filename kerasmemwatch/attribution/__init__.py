"""From a captured step to a timeline in which every allocation has an owner and a category.

The packages below hold the parts; modules here combine them. Nothing here decides when to trace.
"""
