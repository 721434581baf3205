"""Patches around layers, gradients and operations that note who is at work during a step.

Everything here restores what it replaces, also after an exception; nothing here reads a capture.
"""
