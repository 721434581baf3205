"""Whether memory grows over a run, and from what.

``verdicts`` judges recorded series and knows nothing of live objects. ``evidence`` looks at these, ``causes`` explains
what was seen and looks at nothing, and ``release`` lets go of what TensorFlow keeps.
"""
