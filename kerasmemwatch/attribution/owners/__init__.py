"""Rules that give allocations their owner and category.

All of them are pure: events, frames and known buffers in, owners out.
"""
