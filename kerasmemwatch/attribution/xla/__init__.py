"""Programs that XLA compiled: their buffers, their runs, and the purpose of each buffer.

Only ``hlo_proto`` knows the format of XLA's messages.
"""
