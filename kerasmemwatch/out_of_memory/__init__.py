"""A step's death for lack of memory: which layer asked for how much, what was alive, and what would help.

Everything here runs after the error only. The modules are pure, except ``failed_program``, which asks TensorFlow's
profiler, and ``failing_layer``, which reads the frames that the error has left.
"""
