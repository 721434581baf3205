"""Keras' private names."""

from __future__ import annotations

from kerasmemwatch.compat.names import Attribute, ClassName, Local, Name

# Layers, and the variables that layers and optimizers list.
LAYERS = Attribute("keras", "Layer._layers", "Layers within layers that are no models count as a part of them.")
_LISTED = "Variables are attributed by the lists of whole models, so shared ones may have another layer."
VARIABLE_LISTS = (
    Attribute("keras", "Layer._trainable_variables", _LISTED),
    Attribute("keras", "Layer._non_trainable_variables", _LISTED),
)
METRICS = Attribute("keras", "Layer._metrics", "Variables of metrics are unattributed.")
LOSS = Attribute("keras", "Model._compile_loss", "Variables of a compiled loss are unattributed.")
SEED_GENERATORS = Attribute("keras", "Layer._seed_generators", "Seeds of random layers are unattributed.")
OPTIMIZED_VARIABLES = Attribute(
    "keras.optimizers", "Optimizer._trainable_variables", "An optimizer's slots belong to no layer."
)
OPTIMIZER_VARIABLES = Attribute(
    "keras.optimizers", "Optimizer._variables", "An optimizer's variables are those that it lists itself."
)
VARIABLE_VALUE = Attribute("keras", "Variable._value", "Of a variable on several devices one copy is known.")
VARIABLE_SHAPE = Attribute("keras", "Variable._shape", "A variable that has no value yet may be of unknown size.")
VARIABLE_DTYPE = Attribute("keras", "Variable._dtype", "Sizes of variables under autocast may be wrong.")

# A fit's loop.
EPOCH_ITERATOR = Local(
    "keras", "Model.fit.epoch_iterator", "The end of a loop that an exception leaves is known from the next batch on."
)
CATCH_STOP = Attribute("keras.src.trainers.epoch_iterator", "EpochIterator.catch_stop_iteration", EPOCH_ITERATOR.lost)
DATA_ADAPTER = Attribute(
    CATCH_STOP.module,
    "EpochIterator.data_adapter",
    "A fit like one before is traced anew where only its dataset knows the batch size.",
)
ADAPTER_DATASET = Attribute(
    "keras.src.trainers.data_adapters.tf_dataset_adapter", "TFDatasetAdapter._dataset", DATA_ADAPTER.lost
)
CURRENT_ITERATOR = Attribute(
    CATCH_STOP.module,
    "EpochIterator._current_iterator",
    "A cache that fills for several epochs is not known to be one.",
)
INITIAL_EPOCH = Attribute(
    "keras", "Model._initial_epoch", "A fit that is restored before its second epoch begins a recording of its own."
)
LIST_MODEL = Attribute("keras.callbacks", "CallbackList._model", "On JAX, joining a fit copies its state once.")

# Which layer or model is at work.
COMPUTE_LOSS = Name("keras", "Model._compute_loss", "What a compiled loss makes counts as the model's own.")
OPERATIONS = Attribute(
    "keras.src.models.functional",
    "Functional._operations",
    "Operations of functional models that are no layers count as the model's own.",
)
FUNCTIONAL = Attribute("keras", "Sequential._functional", "Sequential models that are found in memory may show twice.")

# State that a summary restores.
GLOBAL_STATE = Name(
    "keras.src.backend.common.global_state",
    "GLOBAL_STATE_TRACKER",
    "Random numbers and names of layers made after a summary may differ.",
)
TRACKER = ClassName("keras.src.utils.tracking", "Tracker", "Lists of variables that a summary changes stay changed.")
COMPILED = (
    LOSS,
    Attribute("keras", "Model._compile_metrics", "There is no summary with an optimizer."),
)
_GRAPHS = "Graphs that a summary runs stay in memory, with an optimizer's variables."
_TRAINER = "keras.src.backend.tensorflow.trainer"
STEP_FUNCTIONS = (
    Local(_TRAINER, "TensorFlowTrainer._make_function.one_step_on_data", _GRAPHS),
    Local(_TRAINER, "TensorFlowTrainer._make_function.multi_step_on_iterator", _GRAPHS),
)

# These names are looked up where a missing one cannot be reported; the code that starts recording reports it instead.
RECORDING = (
    LAYERS,
    *VARIABLE_LISTS,
    METRICS,
    LOSS,
    SEED_GENERATORS,
    OPTIMIZED_VARIABLES,
    OPTIMIZER_VARIABLES,
    VARIABLE_VALUE,
    VARIABLE_SHAPE,
    VARIABLE_DTYPE,
    EPOCH_ITERATOR,
    CATCH_STOP,
    INITIAL_EPOCH,
    LIST_MODEL,
)
TRACING = (DATA_ADAPTER, ADAPTER_DATASET, CURRENT_ITERATOR, COMPUTE_LOSS, OPERATIONS, FUNCTIONAL)
SUMMARY = (GLOBAL_STATE, TRACKER, *STEP_FUNCTIONS)

# Attributes in which Keras, TensorFlow and PyTorch index objects held elsewhere: children, graphs, checkpoints.
# A release without one of these has nothing to leave out there.
BOOKKEEPING = frozenset(
    {
        "_buffers",
        "_compiled_trainable_state",
        "_functional",
        "_inbound_nodes",
        "_inputs_struct",
        "_layers",
        "_loss_ids",
        "_losses",
        "_metrics",
        "_modules",
        "_nodes",
        "_nodes_by_depth",
        "_non_trainable_variables",
        "_operations",
        "_operations_by_depth",
        "_outbound_nodes",
        "_outputs_struct",
        "_parameters",
        "_seed_generators",
        "_tracked",
        "_tracker",
        "_trainable_variables",
        "_variables",
    }
)
