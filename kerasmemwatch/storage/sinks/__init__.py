"""Destinations of a recording, one a module.

A sink gets encoded chunks and never sees the recorder.
"""
