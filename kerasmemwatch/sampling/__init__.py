"""Reading probes at batch boundaries into rows.

The recorder never sees Keras and does no I/O on the per-batch path.
"""
