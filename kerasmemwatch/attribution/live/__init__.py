"""Buffers that Python can name around a step: variables, tensors, batches, iterators, tapes.

Nothing here copies a tensor or keeps one alive.
"""
