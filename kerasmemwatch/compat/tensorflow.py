"""TensorFlow's private names."""

from __future__ import annotations

from kerasmemwatch.compat.names import Attribute, ClassName, Local, Name

_EAGER, _PYWRAP = "tensorflow.python.eager", "tensorflow.python.pywrap_tfe"
_CONTEXT, _RECORD, _DATA = f"{_EAGER}.context", f"{_EAGER}.record", "tensorflow.python.data.ops"
_OPS = "tensorflow.python.framework.ops"

# Reading allocators.
_SLOW = "Reading an allocator takes twice as long."
CONTEXT = Name(_CONTEXT, "context", "No step is traced, and reading an allocator takes twice as long.")
CONTEXT_HANDLE = Attribute(_CONTEXT, "Context._context_handle", _SLOW)
GET_MEMORY_INFO = Name(_PYWRAP, "TFE_GetMemoryInfo", _SLOW)
RESET_MEMORY_STATS = Name(_PYWRAP, "TFE_ResetMemoryStats", _SLOW)

# Whether allocators can still be chosen.
_LATE = "Exact counting on a CPU is turned on only where TF_CPU_ALLOCATOR_USE_BFC=1 is set."
CURRENT_CONTEXT = Name(_CONTEXT, "_context", _LATE)
IS_INITIALIZED = Attribute(_CONTEXT, "Context._initialized", _LATE)

# Capturing steps.
_NO_TRACE = "No step is traced."
PROFILER_SESSION = Name("tensorflow.python.profiler.internal._pywrap_profiler", "ProfilerSession", _NO_TRACE)
PROFILER_OF_V2 = Name("tensorflow.python.profiler.profiler_v2", "_profiler", _NO_TRACE)
XPLANE = Name("tensorflow.tsl.profiler.protobuf.xplane_pb2", "XSpace", _NO_TRACE)
# A capture may end this process if another process's operations run at the same time.
IN_CLUSTER = Attribute(_CONTEXT, "Context._collective_ops_server_def", _NO_TRACE)

# Hooks around graph construction and gradients.
CREATE_OPERATION = Name(
    "tensorflow.python.framework.func_graph",
    "FuncGraph._create_op_internal",
    "The operations of graphs are told apart by their names only.",
)
SET_FUNCTION_ATTRIBUTE = Name(
    _OPS, "Operation._set_func_attr", "A program that is still running when a step ends may have no layer."
)
_OWN_GRADIENTS = "What gradients of a function's own make may have the wrong layer."
RECORD_OPERATIONS = (
    Name(_RECORD, "record_operation", _OWN_GRADIENTS),
    Name(_RECORD, "record_operation_backprop_only", _OWN_GRADIENTS),
)
_BACKWARD = "What the backward pass makes may have no layer, or the wrong one."
GRADIENT_FUNCTION = Name(f"{_EAGER}.backprop", "_gradient_function", _BACKWARD)
RECORD_GRADIENT = Name(f"{_EAGER}.execute", "record_gradient", _BACKWARD)
REGISTER_GRADIENT_FUNCTION = Name(_PYWRAP, "TFE_Py_RegisterGradientFunction", _BACKWARD)
NO_TAPE_RECORDS = Name(
    _PYWRAP,
    "TFE_Py_TapeSetIsEmpty",
    "Gradients of weights are not told from other values of the backward pass, and tapes by themselves record nothing.",
)
MERGE_CALL = Name(
    "tensorflow.python.distribute.mirrored_run",
    "_MirroredReplicaContext._merge_call",
    "What replicas do together may be taken for the input pipeline's.",
)
FILTER_STACK = Name(
    "tensorflow.python.util.tf_stack",
    "StackTraceFilter",
    "TensorFlow's errors show our functions where they say how an operation was made.",
)
FILTER_MODULE = Name(FILTER_STACK.module, "CurrentModuleFilter", FILTER_STACK.lost)
FAST_EXECUTE = Name(_PYWRAP, "TFE_Py_FastPathExecute", "What the backward pass makes in eager mode has no layer.")
CALL_FUNCTION = Name(_CONTEXT, "Context.call_function", "Operations of functions may be taken for eager ones.")

# Where variables and tensors are.
_MADE_IN_STEP = "Variables made in a step are known from its end on."
CREATE_FUNCTION = Name(f"{_EAGER}.polymorphic_function.tracing_compilation", "_create_concrete_function", _MADE_IN_STEP)
ASSIGN_VARIABLE = Name("tensorflow.python.ops.gen_resource_variable_ops", "assign_variable_op", _MADE_IN_STEP)
STOP_RECORDING = Name(_RECORD, "stop_recording", "A tape of yours also records that variables are looked at.")
EAGER_TENSOR = ClassName(_OPS, "EagerTensor", "Tensors that your code holds are unattributed.")
FUNC_GRAPH = ClassName(CREATE_OPERATION.module, "FuncGraph", "What functions of earlier models hold is unattributed.")
HANDLE_DATA = Attribute(_OPS, "EagerTensor._handle_data", FUNC_GRAPH.lost)

# Contents of input pipelines.
_WAITING = "Batches that wait in an input pipeline are unattributed."
OWNED_ITERATOR = ClassName(f"{_DATA}.iterator_ops", "OwnedIterator", _WAITING)
ITERATOR_RESOURCE = Attribute(OWNED_ITERATOR.module, "OwnedIterator._iterator_resource", _WAITING)
MODEL_PROTO = Name("tensorflow.core.framework.model_pb2", "ModelProto", _WAITING)
_LOOSE = "What datasets hold may be taken for tensors of yours."
DATASET_TENSORS = Attribute(f"{_DATA}.from_tensor_slices_op", "_TensorSliceDataset._tensors", _LOOSE)
DATASET_FUNCTION = Attribute(f"{_DATA}.map_op", "_MapDataset._map_func", _LOOSE)
_KEPT = "Arrays that a running input pipeline keeps are unattributed."
DATASET_INPUTS = Attribute(f"{_DATA}.dataset_ops", "DatasetV2._inputs", _KEPT)
DATASET_FUNCTIONS = Attribute(f"{_DATA}.dataset_ops", "DatasetV2._functions", _KEPT)
CACHE_FILENAME = Attribute(f"{_DATA}.cache_op", "CacheDataset._filename", "A cache that fills is not known to be one.")
_ALIKE = "A fit like one before is traced anew where only its dataset knows the batch size."
BATCH_SIZE = Attribute(f"{_DATA}.batch_op", "_BatchDataset._batch_size", _ALIKE)
INPUT_DATASET = Attribute(f"{_DATA}.map_op", "_MapDataset._input_dataset", _ALIKE)
ITERATOR_DATASET = Attribute(OWNED_ITERATOR.module, "OwnedIterator._dataset", f"{_KEPT} {_ALIKE}")

# Tapes.
FUNCTION_CALL = Name(
    f"{_EAGER}.polymorphic_function.polymorphic_function",
    "Function._call",
    "Some steps of tapes that have no session are not recorded.",
)
TAPE = Attribute(f"{_EAGER}.backprop", "GradientTape._tape", "What persistent tapes keep is unattributed.")
TAPE_RECORDS = Attribute(TAPE.module, "GradientTape._recording", "What a tape's gradients take is unknown.")

# What TensorFlow keeps by name. The registry of gradients is among the names below.
FUNCTION_REFS = Name(
    f"{_EAGER}.polymorphic_function.atomic_function", "RUNTIME_FUNCTION_REFS", "Functions that pile up are not counted."
)
PY_FUNCTIONS = Name(
    "tensorflow.python.ops.script_ops", "_py_funcs", "Python functions that datasets keep are not counted."
)

# A graph's attribute, a list, in which it keeps them. A release without it has nothing to show there.
KEPT_FUNCTIONS = "_py_funcs_used_in_graph"

# What TensorFlow keeps for ever once it is made.
LOOKUP_TABLE = Name(
    "tensorflow.python.ops.lookup_ops", "LookupInterface.__init__", "Lookup tables that pile up are not counted."
)
_KERNELS = "Kernels of new names and seeds that pile up are not counted."
OPERATION_SEED = Name(_CONTEXT, "internal_operation_seed", _KERNELS)
ANONYMOUS_NAME = Name(_CONTEXT, "anonymous_name", _KERNELS)
VARIABLE_NAME = Local(
    "tensorflow.python.ops.resource_variable_ops", "_variable_handle_from_shape_and_dtype.name", _KERNELS
)
EAGER_PY_FUNCTION = Name(PY_FUNCTIONS.module, "EagerFunc.__init__", "It is not said which line calls `tf.py_function`.")
TAPE_CACHE = Name(PY_FUNCTIONS.module, "tape_cache", "Tapes of `tf.py_function` that pile up are not counted.")
ONEDNN = Name(
    "tensorflow.python.util._pywrap_util_port", "IsMklEnabled", "What oneDNN keeps for each shape is not told apart."
)

# What is looked at where memory grows.
_CAUSE = "Of functions that are traced anew it is not said what differs."
TF_FUNCTION = ClassName(f"{_EAGER}.polymorphic_function.polymorphic_function", "Function", _CAUSE)
_GROWN = "Graphs that grow are not found."
GRAPH_SIZE = Name(_OPS, "Graph.num_operations", _GROWN)
GRAPH_KEY = Attribute(_OPS, "Graph._graph_key", _GROWN)
CONVERTED_CODE = Name(
    "tensorflow.python.autograph.impl.api", "_TRANSPILER._cache._cache", "Lines of converted functions are not told."
)
CONCRETE_FUNCTIONS = Attribute(TF_FUNCTION.module, "Function._list_all_concrete_functions", _CAUSE)

# State that a summary restores.
_DRAWN = "Random numbers drawn after a summary may differ."
CONTEXT_SEEDS = Attribute(_CONTEXT, "Context._rng", _DRAWN)
GLOBAL_GENERATOR = Name("tensorflow.python.ops.stateful_random_ops", "global_generator", _DRAWN)
REGISTERED_GRADIENTS = Name(
    _OPS,
    "gradient_registry._registry",
    "Graphs that a summary runs stay in memory, with an optimizer's variables, and so do dead models' in spite of "
    "`release`; those that stay are not counted.",
)
TRACKABLE_CONTAINER = Name(
    "tensorflow.python.trackable.data_structures",
    "TrackableDataStructure",
    "What a summary changes in containers of modules stays changed.",
)

# What TensorFlow keeps of dead models.
_PINNED = "The graphs of dead models stay in memory in spite of `release`, and their variables."
ENTRY_FUNCTION = Local("tensorflow.python.ops.custom_gradient", "_graph_mode_decorator.tape_grad_fn", _PINNED)
ENTRY_TENSORS = Local(ENTRY_FUNCTION.module, "_graph_mode_decorator.result", _PINNED)
CLEAR_KERNELS = Name(
    _CONTEXT, "Context.clear_kernel_cache", "The cache of eager kernels stays as it is, in spite of `release`."
)
# The operation that calls an entry, and its attribute with the entry's name.
ENTRY_OPERATION, ENTRY_ATTRIBUTE = "IdentityN", "_gradient_op_type"

# These names are looked up where a missing one cannot be reported; the code that starts recording reports it instead.
RECORDING = (
    CONTEXT,
    CONTEXT_HANDLE,
    GET_MEMORY_INFO,
    RESET_MEMORY_STATS,
    CURRENT_CONTEXT,
    IS_INITIALIZED,
    FUNCTION_REFS,
    PY_FUNCTIONS,
    REGISTERED_GRADIENTS,
    TF_FUNCTION,
    CONCRETE_FUNCTIONS,
    CACHE_FILENAME,
    LOOKUP_TABLE,
    OPERATION_SEED,
    ANONYMOUS_NAME,
    VARIABLE_NAME,
    EAGER_PY_FUNCTION,
    TAPE_CACHE,
    ONEDNN,
    GRAPH_SIZE,
    GRAPH_KEY,
    CONVERTED_CODE,
)
TRACING = (
    STOP_RECORDING,
    EAGER_TENSOR,
    FUNC_GRAPH,
    HANDLE_DATA,
    OWNED_ITERATOR,
    ITERATOR_RESOURCE,
    MODEL_PROTO,
    DATASET_TENSORS,
    DATASET_FUNCTION,
    DATASET_FUNCTIONS,
    DATASET_INPUTS,
    BATCH_SIZE,
    INPUT_DATASET,
    ITERATOR_DATASET,
)
TAPES = (FUNCTION_CALL, TAPE, TAPE_RECORDS)
SUMMARY = (CONTEXT_SEEDS, GLOBAL_GENERATOR, REGISTERED_GRADIENTS, TRACKABLE_CONTAINER)
RELEASE = (REGISTERED_GRADIENTS, ENTRY_FUNCTION, ENTRY_TENSORS, CLEAR_KERNELS)
