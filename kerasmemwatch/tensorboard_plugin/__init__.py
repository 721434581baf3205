"""The Memory tab in TensorBoard: its routes and the page's files.

Importing this package loads nothing, and nothing here imports Keras or TensorFlow.
"""
