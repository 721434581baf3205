"""Questions about traced steps: what was alive when, what each layer took, on which device.

Everything here takes only timelines and does not depend on runs or samples.
"""
