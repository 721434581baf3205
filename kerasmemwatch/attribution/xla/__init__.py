"""Programs that XLA compiled: their buffers, when they ran, and what each buffer is for.

Only ``hlo_proto`` knows the format of XLA's messages.
"""
