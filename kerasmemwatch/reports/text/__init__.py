"""Findings as text, on a terminal and elsewhere.

Names of layers and runs are escaped here; nothing is computed.
"""
