"""Variables, layers and optimizers of the watched models: paths, sizes, owners.

Nothing here looks at a capture; nothing runs an operation or keeps a model alive.
"""
