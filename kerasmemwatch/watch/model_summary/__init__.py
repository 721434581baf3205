"""``summary``: the memory of a model without training data.

Whatever a model's state was before, it is again afterwards.
"""
