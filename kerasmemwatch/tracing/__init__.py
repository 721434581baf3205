"""When to trace a step or a gap, capturing it, and handing it over for analysis.

Nothing here decides who owns an allocation.
"""
