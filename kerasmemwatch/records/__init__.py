"""Frozen values that everything else is built from: runs, samples, peaks, timelines, owners.

``rows`` also joins recorded rows and converts them to samples. Nothing here reads a file or imports a framework; an
unknown value is ``None`` or NaN, never 0.
"""
