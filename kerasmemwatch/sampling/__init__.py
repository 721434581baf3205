"""Sampling: reading probes into rows at batch boundaries.

The recorder never sees Keras and does no I/O on the per-batch path.
"""
