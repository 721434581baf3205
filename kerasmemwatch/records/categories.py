"""Categories of memory, and what is true of all bytes in each."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CATEGORIES", "GROWING_WITH_BATCH", "OF_TRAINING", "OF_VARIABLES"]


class _Category(NamedTuple):
    name: str
    is_of_variables: bool = False  # variables hold it, between steps too; the inventory has it
    is_of_training: bool = False  # only steps that train have it
    grows_with_batch: bool = False  # its buffers may have as many rows as the batch


# Recordings store the index, so a new category comes last. Sparse gradients grow with the batch: they have a row for
# each lookup.
_ALL = (
    _Category("weights", is_of_variables=True),
    _Category("optimizer", is_of_variables=True, is_of_training=True),
    _Category("gradients", is_of_training=True, grows_with_batch=True),
    _Category("activations", is_of_training=True, grows_with_batch=True),
    _Category("temporaries", grows_with_batch=True),
    _Category("inputs", grows_with_batch=True),
    _Category("other", is_of_variables=True),
    _Category("unattributed", grows_with_batch=True),
)
CATEGORIES = tuple(each.name for each in _ALL)
OF_VARIABLES = tuple(each.name for each in _ALL if each.is_of_variables)
OF_TRAINING = tuple(each.name for each in _ALL if each.is_of_training)
GROWING_WITH_BATCH = tuple(each.name for each in _ALL if each.grows_with_batch)
