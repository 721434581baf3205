"""TensorBoard's private names, and names of its plugin interface other than base classes."""

from __future__ import annotations

from kerasmemwatch.compat.names import Name

_PROTO = "tensorboard.compat.proto"

_NO_FILES = "Runs are neither written nor read."
EVENT = Name(f"{_PROTO}.event_pb2", "Event", _NO_FILES)
SUMMARY_METADATA = Name(f"{_PROTO}.summary_pb2", "SummaryMetadata", _NO_FILES)
DATA_CLASS = Name(f"{_PROTO}.summary_pb2", "DATA_CLASS_TENSOR", _NO_FILES)
TENSOR = Name(f"{_PROTO}.tensor_pb2", "TensorProto", _NO_FILES)
DATA_TYPES = Name(f"{_PROTO}.types_pb2", "DataType", _NO_FILES)
FILE_INTERFACE = Name("tensorboard.compat", "tf", "Log directories must be local.")

SCALAR_METADATA = Name(
    "tensorboard.plugins.scalar.metadata", "create_summary_metadata", "TensorBoard's Scalars tab does not show memory."
)

_NO_TAB = "The Memory tab is left out."
REQUEST_CONTEXT = Name("tensorboard.plugin_util", "context", _NO_TAB)
EXPERIMENT_ID = Name("tensorboard.plugin_util", "experiment_id", _NO_TAB)
RESPOND = Name("tensorboard.backend.http_util", "Respond", _NO_TAB)
PUBLIC_ERROR = Name("tensorboard.errors", "PublicError", _NO_TAB)
RUN_TAG_FILTER = Name("tensorboard.data.provider", "RunTagFilter", _NO_TAB)

# These names are looked up where a missing one cannot be reported.
SCALARS = (SCALAR_METADATA,)
