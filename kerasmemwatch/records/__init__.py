"""Frozen values that everything else is built from: runs, samples, peaks, timelines, owners.

Nothing here computes, reads a file or imports a framework; an unknown value is ``None`` or NaN, never 0.
"""
