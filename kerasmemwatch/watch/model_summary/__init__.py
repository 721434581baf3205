"""``summary``: the memory of a model without training data.

A model's state is the same afterwards as before.
"""
