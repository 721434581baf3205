"""Memory of one layer, or of an owner that is not a layer."""

from __future__ import annotations

from dataclasses import dataclass

from kerasmemwatch.records.categories import OF_VARIABLES
from kerasmemwatch.records.owners import Owner

__all__ = ["LayerMemory"]


@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one layer (excluding its sub-layers) or of a named owner that is not a layer.

    Attributes:
        path: ``"encoder/block_3/attention"``, or an owner: ``"optimizer"``, ``"metrics"``, ...
        class_name: Class of the layer, ``""`` for an owner that is not a layer.
        weights_bytes: Its variables, including raw ``tf.Variable``s.
        gradients_bytes: Gradients of its weights.
        optimizer_bytes: Optimizer slots of its weights.
        activations_bytes: Forward outputs that the backward pass needs.
        temporaries_bytes: Workspaces and short-lived values.
        inputs_bytes: The batch and the input pipeline's buffers.
        output_bytes: Size of the outputs of one call.
        other_bytes: Seeds, metric states.
        unattributed_bytes: Allocations of unknown category.
        total_bytes: In a live set, the sum of the row; over a whole step, the most it had alive at once.
        added_bytes: How much lower the step's peak would be without this layer's own buffers.
        forward_peak_bytes: Highest live bytes of all owners while its forward pass allocated.
        backward_peak_bytes: The same for its backward pass.
        num_variables: Number of variables counted.
    """

    path: str
    class_name: str = ""
    weights_bytes: int | None = None
    gradients_bytes: int | None = None
    optimizer_bytes: int | None = None
    activations_bytes: int | None = None
    temporaries_bytes: int | None = None
    inputs_bytes: int | None = None
    output_bytes: int | None = None
    other_bytes: int | None = None
    unattributed_bytes: int | None = None
    total_bytes: int | None = None
    added_bytes: int | None = None
    forward_peak_bytes: int | None = None
    backward_peak_bytes: int | None = None
    num_variables: int | None = None

    @property
    def owner(self) -> Owner:
        """Whose bytes these are, as a key."""
        return Owner(self.path, self.class_name)

    @property
    def known_variables_bytes(self) -> int:
        """Bytes of its variables, as far as they are known."""
        return sum(getattr(self, f"{name}_bytes") or 0 for name in OF_VARIABLES)
