"""Findings as one HTML file, which works without a network, and as a notebook's output.

All text is escaped here; nothing is computed.
"""
