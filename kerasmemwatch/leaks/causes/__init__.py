"""Causes of growth: pure functions from counters, looks and verdicts to ``LeakFinding``s.

Nothing here looks at live objects; each module knows one kind of leak, its evidence and its fix.
"""
