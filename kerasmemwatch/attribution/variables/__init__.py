"""Variables, layers and optimizers of the watched models: paths, sizes, owners.

Nothing here reads a capture, runs an operation or keeps a model alive.
"""
