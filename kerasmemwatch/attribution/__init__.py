"""Attribution of a captured step: a timeline in which every allocation has an owner and a category.

The packages below hold the parts, and the modules here combine them. Nothing here decides when to trace.
"""
