"""Tracing: deciding when to trace a step or gap, capturing it, and handing it over for analysis.

Nothing here decides which owner an allocation has.
"""
