"""Questions about traced steps: what was alive when, what each layer took, on which device.

Everything here takes timelines only and knows nothing of runs or samples.
"""
