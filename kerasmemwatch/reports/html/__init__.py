"""Findings as one HTML file that works without a network, and as notebook output.

All text is escaped here; nothing is computed.
"""
