"""Readers of what a profiler capture records about allocators: events, spans, devices and chunks.

Nothing here knows about layers or owners.
"""
