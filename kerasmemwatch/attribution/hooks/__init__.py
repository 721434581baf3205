"""Patches around layers, gradients and operations that record what runs during a step.

They restore all that they replace, even after an exception. Nothing here reads a capture.
"""
