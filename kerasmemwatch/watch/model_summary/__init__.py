"""``summary``: the memory of a model without training data.

Nothing here trains a model: its state is the same afterwards as before.
"""
