"""Buffers that Python can name around a step: variables, tensors, batches, iterators and tapes.

Nothing here copies a tensor or keeps one alive.
"""
