"""Destinations of a recording, one per module.

A sink receives encoded chunks and never sees the recorder.
"""
