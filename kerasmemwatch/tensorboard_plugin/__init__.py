"""The Memory tab in TensorBoard: routes, and the page's own files.

Importing this package loads nothing, and nothing here imports Keras or TensorFlow.
"""
