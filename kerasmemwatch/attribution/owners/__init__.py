"""Rules that give allocations their owner and category.

All are pure: events, frames and known buffers go in, owners come out.
"""
