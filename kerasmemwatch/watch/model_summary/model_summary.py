"""``summary``: the memory of each layer of a model, without training data."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kerasmemwatch.compat import keras as keras_names
from kerasmemwatch.compat import tensorflow as tensorflow_names
from kerasmemwatch.compat.keras import COMPILED
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, ProbeUnavailableError
from kerasmemwatch.reports.report import Report
from kerasmemwatch.switches import disabled
from kerasmemwatch.watch.model_summary.gradient_registry import step_graphs_dropped
from kerasmemwatch.watch.model_summary.model_state import as_it_was
from kerasmemwatch.watch.model_summary.random_state import same_random_numbers
from kerasmemwatch.watch.model_summary.zero_batch import example_inputs, example_targets

if TYPE_CHECKING:
    import keras

__all__ = ["summary"]

_MODES = ("training", "inference")
# The first step makes the functions, the optimizer's variables and everything else that is made once.
_EXECUTIONS, _TRACED = 2, 2


def summary(
    model: Any,
    batch_size: int = 32,
    optimizer: str | keras.Optimizer | None = "adam",
    mode: str = "training",
    *,
    inputs: Any = None,
    targets: Any = None,
    print_fn: Callable[[str], object] | None = None,
) -> Report:
    """Print each layer's memory: weights, gradients, optimizer, activations, temporaries.

    Runs two real steps on a batch of zeros and traces the second. Afterwards the model is bit-for-bit as before, even
    if a step fails or is interrupted: variables, optimizer, metrics, seeds, whether it is built and compiled, and all
    random numbers drawn later. The variables are copied to host memory meanwhile.

    The step is that of ``keras.Model`` on the model's ``call``. Its loss is the mean of the squared outputs plus
    ``add_loss`` losses; its memory is the row ``loss``. With ``optimizer=None``, the step is the model's own, with
    what it was compiled with and its own ``train_step`` if it has one. The figures are those of one batch: the input
    pipeline holds only that, and other live memory of the process has rows of its own (``other variables``,
    ``eager tensors``).

    Args:
        model: A Keras model.
        batch_size: Number of samples in the batch. Stateful layers need the one that they were built with.
        optimizer: An optimizer's name, or an optimizer, which is copied; ``None`` for what the model was compiled with.
        mode: ``"training"``, or ``"inference"`` for a step of ``predict``.
        inputs: What the batch looks like, for a model that does not say: a subclassed one, or one with dimensions of
            any size. Arrays and tensors are used as the batch; ``keras.Input(shape, dtype=...)``, without the batch
            dimension, becomes zeros. In the structure that the model takes.
        targets: A batch of targets for the model's own loss; by default zeros in the shape of the outputs, and class
            0 for a loss whose name begins with "sparse". The model's own ``train_step`` gets none by default.
        print_fn: Receives the text; by default it is printed.

    Returns:
        The report of the traced step.

    Raises:
        InvalidTypeError: If ``model`` is not a Keras model (a ``TypeError``).
        InvalidArgumentError: If an argument's value is invalid, or the model does not show its inputs (a
            ``ValueError``).
        ProbeUnavailableError: If Keras' backend is not TensorFlow (a ``RuntimeError``).

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(128, name="head")])
        >>> report = summary(model, batch_size=32, print_fn=lambda text: None)
        >>> head = report.layers[0]
        >>> head.path, head.weights_bytes, head.output_bytes
        ('head', 524800, 16384)
    """
    _check(model, batch_size, optimizer, mode)
    if disabled():
        report, title = _nothing(), "Nothing was measured: KERASMEMWATCH_DISABLE is set."
    else:
        try:
            # Random numbers drawn for the batch and its run do not affect later ones.
            with warnings.catch_warnings(), step_graphs_dropped(), same_random_numbers(), as_it_was(model):
                warnings.simplefilter("ignore")
                report, num_samples = _measured(model, batch_size, optimizer, mode, inputs, targets)
        finally:
            # Functions are in reference cycles: without this, they and the optimizer's variables stay for a while.
            gc.collect()
        title = f"Memory of {_what(model, mode, optimizer)}, batch of {num_samples}"
    _show(report, title, print_fn)
    return report


def _check(model: Any, batch_size: Any, optimizer: Any, mode: Any) -> None:
    import keras

    if not isinstance(model, keras.Model):
        remedy = " Put layers into a keras.Sequential." if isinstance(model, keras.Layer) else ""
        raise InvalidTypeError(
            f"Expected model to be a Keras model. Received: model={model!r} (of type {type(model).__name__}).{remedy}"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise InvalidTypeError(
            f"Expected batch_size to be a whole number. Received: batch_size={batch_size!r} "
            f"(of type {type(batch_size).__name__})."
        )
    if batch_size < 1:
        raise InvalidArgumentError(f"Expected batch_size to be at least 1. Received: batch_size={batch_size}.")
    if mode not in _MODES:
        raise InvalidArgumentError(f"Expected mode to be 'training' or 'inference'. Received: mode={mode!r}.")
    if optimizer is None and mode == "training" and not model.compiled:
        raise InvalidArgumentError(
            "Expected a compiled model where optimizer=None. Received: a model that is not compiled. Compile it, or "
            "name an optimizer."
        )
    if keras.backend.backend() != "tensorflow":
        raise ProbeUnavailableError(
            f"What layers hold is unknown: it is measured on Keras' tensorflow backend only, and this is "
            f"{keras.backend.backend()}.",
            "Set KERAS_BACKEND=tensorflow.",
        )


def _measured(model: Any, batch_size: int, optimizer: Any, mode: str, inputs: Any, targets: Any) -> tuple[Report, int]:
    """The report, and the size of its batch."""
    import keras
    import tensorflow as tf

    from kerasmemwatch.probes.tensorflow import TensorFlowProbe
    from kerasmemwatch.watch.memory_watch import MemoryWatch

    batch = (example_inputs(model, inputs, batch_size),)
    if mode == "training" and optimizer is not None:
        _compile(model, optimizer)
    elif mode == "training":
        batch += _targets(model, batch[0], targets)
    # Functions made earlier lack the hooks that show which layer is at work.
    model.train_function = model.test_function = model.predict_function = None
    executed = getattr(model, "steps_per_execution", None) or 1
    watch = MemoryWatch(
        log_dir=None,
        trace=[(_TRACED - 1) * executed + 1],
        verbose=0,
        probes=[TensorFlowProbe()],
    )
    data, num_steps = tf.data.Dataset.from_tensors(batch).repeat(), _EXECUTIONS * executed
    try:
        if mode == "inference":
            keras.Model.predict(model, data, steps=num_steps, verbose=0, callbacks=[watch])
        else:
            keras.Model.fit(model, data, steps_per_epoch=num_steps, verbose=0, shuffle=False, callbacks=[watch])
    except Exception as error:
        if mode == "training" and optimizer is None and targets is None:
            error.add_note("The step ran with targets that kerasmemwatch made up. If they do not fit, pass targets=.")
        raise
    if watch._recorder is not None:
        watch._recorder.faults.tell_missing((*keras_names.SUMMARY, *tensorflow_names.SUMMARY))
    return watch.report, next((int(part.shape[0]) for part in keras.tree.flatten(batch[0]) if len(part.shape)), 1)


def _compile(model: Any, optimizer: Any) -> None:
    """Give a model the simplest loss, and Keras' own step."""
    import keras

    # Keep these two of its own compile settings, if it has been compiled.
    how = {"run_eagerly": model.run_eagerly, "jit_compile": model.jit_compile} if model.compiled else {}
    if isinstance(optimizer, keras.Optimizer):
        optimizer = type(optimizer).from_config(optimizer.get_config())
    # Keras leaves settings in place that it is not given.
    for name in COMPILED:
        name.owner()  # without it, what the model was compiled with would stay
        setattr(model, name.attribute, None)
    keras.Model.compile(model, optimizer, **how)

    def compute_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        outputs = [one for one in keras.tree.flatten(y_pred) if keras.backend.is_float_dtype(one.dtype)]
        if not outputs:
            raise InvalidArgumentError(
                "Expected a model with an output of floating point numbers. Received: none, so there is nothing to "
                "train. Use mode='inference'."
            )
        return sum([keras.ops.mean(keras.ops.square(output)) for output in outputs]) + sum(model.losses)

    # Set on this model only, so classes stay unchanged. Looked up when called, because hooks may be set by then.
    model.compute_loss = compute_loss
    model.compute_metrics = lambda *args, **kwargs: keras.Model.compute_metrics(model, *args, **kwargs)
    model.train_step = lambda data: keras.Model.train_step(model, data)


def _targets(model: Any, inputs: Any, targets: Any) -> tuple[Any, ...]:
    import keras

    if targets is not None:
        return (keras.tree.lists_to_tuples(targets),)
    if type(model).train_step is not keras.Model.train_step:
        return ()
    return (example_targets(model(inputs, training=False), model.loss, getattr(model, "output_names", ())),)


def _nothing() -> Report:
    from kerasmemwatch.records.rows import to_samples
    from kerasmemwatch.records.run import RunInfo
    from kerasmemwatch.reports.report import make_report

    return make_report(RunInfo("", float("nan")), to_samples(()))


def _what(model: Any, mode: str, optimizer: Any) -> str:
    if mode == "inference":
        return f"a prediction of {model.name}"
    if optimizer is None:
        return f"a training step of {model.name}, as compiled"
    name = optimizer if isinstance(optimizer, str) else getattr(optimizer, "name", type(optimizer).__name__)
    return f"a training step of {model.name} with {name}"


def _show(report: Report, title: str, print_fn: Callable[[str], object] | None) -> None:
    import sys

    from kerasmemwatch.reports.text.report_text import plain_text, print_report

    if print_fn is None:
        print_report(report, sys.stdout, everything=True, title=title)
    else:
        print_fn(plain_text(report, everything=True, title=title))
