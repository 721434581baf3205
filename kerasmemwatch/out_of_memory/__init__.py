"""A step's death for lack of memory: which layer asked for how much, what was alive, and what would help.

Everything here runs after the error only. The modules are pure but for ``programs``, which asks TensorFlow's profiler.
"""
