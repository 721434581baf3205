"""Findings as text, for terminals and other output.

Names of layers and runs are escaped here; nothing is judged.
"""
