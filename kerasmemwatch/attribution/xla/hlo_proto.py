"""The part of XLA's ``HloProto`` that describes a compiled step's buffers.

Fields are declared by number, which protobuf never reuses, so that neither TensorFlow nor JAX has to be loaded; their
Python modules for it are private and move. Undeclared fields are skipped.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["parse_hlo"]

# xla/service/hlo.proto and xla/xla_data.proto: name: (number, type), where [type] is repeated.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "HloProto": {"hlo_module": (1, "HloModuleProto"), "buffer_assignment": (3, "BufferAssignmentProto")},
    "HloModuleProto": {
        "name": (1, "string"),
        "computations": (3, "[HloComputationProto]"),
        "id": (5, "int64"),
        "entry_computation_id": (6, "int64"),
        "schedule": (7, "HloScheduleProto"),
    },
    "HloComputationProto": {
        "name": (1, "string"),
        "instructions": (2, "[HloInstructionProto]"),
        "id": (5, "int64"),
        "root_id": (6, "int64"),
    },
    "HloInstructionProto": {
        "name": (1, "string"),
        "opcode": (2, "string"),
        "shape": (3, "ShapeProto"),
        "metadata": (7, "OpMetadata"),
        "parameter_number": (9, "int64"),
        "tuple_index": (13, "int64"),
        "id": (35, "int64"),
        "operand_ids": (36, "[int64]"),
        "called_computation_ids": (38, "[int64]"),
    },
    "OpMetadata": {"op_name": (2, "string")},
    "ShapeProto": {"dimensions": (3, "[int64]"), "tuple_shapes": (4, "[ShapeProto]")},
    # A protobuf map is a repeated message with a key and a value.
    "HloScheduleProto": {"sequences": (1, "[HloSequenceEntry]")},
    "HloSequenceEntry": {"key": (1, "int64"), "value": (2, "HloSequence")},
    "HloSequence": {"instruction_ids": (1, "[int64]")},
    "BufferAssignmentProto": {
        "logical_buffers": (1, "[LogicalBufferProto]"),
        "buffer_allocations": (3, "[BufferAllocationProto]"),
    },
    "LogicalBufferProto": {"id": (1, "int64"), "size": (2, "int64"), "defined_at": (3, "LogicalBufferLocation")},
    "LogicalBufferLocation": {"shape_index": (3, "[int64]"), "instruction_id": (4, "int64")},
    "BufferAllocationProto": {
        "index": (1, "int64"),
        "size": (2, "int64"),
        "is_thread_local": (3, "bool"),
        "is_entry_computation_parameter": (5, "bool"),
        "parameter_number": (6, "int64"),
        "maybe_live_out": (7, "bool"),
        "assigned": (9, "[BufferAllocationAssigned]"),
        "is_constant": (12, "bool"),
    },
    "BufferAllocationAssigned": {"logical_buffer_id": (1, "int64"), "offset": (2, "int64"), "size": (3, "int64")},
}
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _FIELD.TYPE_STRING, "int64": _FIELD.TYPE_INT64, "bool": _FIELD.TYPE_BOOL}
# A package of its own: the real messages may be loaded in this process too.
_PACKAGE = "kerasmemwatch.hlo"


def parse_hlo(data: bytes) -> Any:
    """Parse a serialized ``HloProto``.

    Raises:
        google.protobuf.message.DecodeError: If the bytes are no such message.
    """
    return _message_class().FromString(data)


@cache
def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="kerasmemwatch/hlo.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _FIELD.LABEL_REPEATED if kind.startswith("[") else _FIELD.LABEL_OPTIONAL
            kind = kind.strip("[]")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.HloProto"))
