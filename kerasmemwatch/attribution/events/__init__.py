"""What the profiler's capture says of allocators: events, spans, devices, chunks.

Nothing here knows layers or owners.
"""
