"""Findings as figures, the same for notebook, HTML and TensorBoard: Plotly's, as dicts made without Plotly.

A module draws one figure or one thing that all have in common.
"""
