"""Findings as Plotly figures, the same for notebook, HTML and TensorBoard: dicts made without importing Plotly.

Each module draws one figure, or one thing that all figures share.
"""
