"""An event's name leads to who made the operation."""

from __future__ import annotations

import pytest

from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import LOSS, METRICS, OPTIMIZER, Frame

STEP = "StatefulPartitionedCall"


def layer(path: str, phase: str = "forward") -> Frame:
    return Frame(path, "Dense", phase)


def owners(**ops: str) -> OpOwners:
    """By name with ``__`` for ``/``: paths of layers, with ``^`` in front in the backward pass."""
    return OpOwners(
        {
            name.replace("__", "/"): [
                layer(path.lstrip("^"), "backward" if path.startswith("^") else "forward") for path in paths.split()
            ]
            for name, paths in ops.items()
        }
    )


def test_the_call_of_the_step_stands_in_front() -> None:
    found = owners(model__a__MatMul="a")
    assert found.find(f"{STEP}/model/a/MatMul") == layer("a")
    assert found.find("model/a/MatMul") == layer("a")
    assert found.exact(f"{STEP}/model/a/MatMul") == "model/a/MatMul"
    assert found.exact("model/b/MatMul") is None


def test_in_a_loop_the_name_of_the_body_counts() -> None:
    found = owners(model__lstm__while__add="lstm", model__lstm__while__lstm_cell__MatMul="lstm/lstm_cell")
    name = f"{STEP}/model/lstm/while/body/_12/model/lstm/while/lstm_cell/MatMul"
    assert found.find(name) == layer("lstm/lstm_cell")
    # Of the loop itself, what has no name.
    assert found.find(f"{STEP}/model/lstm/while/body/_12/Identity").owner == "lstm"


def test_an_operation_that_was_renamed_is_its_scopes() -> None:
    found = owners(model__a__convolution="a", model__b__convolution="b")
    assert found.find(f"{STEP}/model/a/convolution-0-TransposeNHWCToNCHW-LayoutOptimizer") == layer("a")
    assert found.find("ConstantFolding/model/b/convolution_folded") == layer("b")


def test_an_operation_that_was_moved_is_its_makers() -> None:
    # The gradient that a layer gives itself has no scope of the layer's.
    found = owners(Tensordot__MatMul="^a", model__b__add="b")
    assert found.find(f"{STEP}/Tensordot/ArithmeticOptimizer/FoldTransposeIntoMatMul_MatMul") == layer("a", "backward")
    moved = f"{STEP}/model/b/ArithmeticOptimizer/ReorderCastLikeAndValuePreserving_float_add"
    assert found.exact(moved) == "model/b/add"


def test_a_scope_with_sublayers_is_the_outer_layers() -> None:
    found = owners(m__enc__add="enc", m__enc__d1__MatMul="enc/d1", m__enc__d2__MatMul="enc/d2")
    assert found.find("m/enc/new") == layer("enc")
    assert found.find("m/enc/d2/new") == layer("enc/d2")


def test_a_scope_of_several_layers_is_nobodys() -> None:
    found = owners(m__a__MatMul="a", m__b__MatMul="b")
    assert found.find("m/new") is None
    assert found.find("elsewhere") is None


def test_a_gradients_scope_is_the_backward_pass() -> None:
    found = owners(model__a__MatMul="a")
    assert found.find(f"{STEP}/gradient_tape/model/a/MatMul/renamed") == layer("a", "backward")
    assert found.find("gradients/model/a/MatMul_grad/renamed") == layer("a", "backward")


def test_the_exact_name_comes_before_the_scope() -> None:
    # A layer that another one calls within its own scope.
    found = owners(model__a__MatMul="a", model__a__Relu="b")
    assert found.find("model/a/Relu") == layer("b")


def test_frames_without_owner_give_way_to_the_scope() -> None:
    ops = {"m/a/MatMul": [layer("a")], "m/a/mul": [Frame("", "", "backward")], "mul": [Frame("", "", "backward")]}
    assert OpOwners(ops).find("gradient_tape/m/a/mul") == layer("a", "backward")
    assert OpOwners(ops).find("mul") == Frame("", "", "backward")


def test_a_bare_name_does_not_lead_to_another_functions_operation() -> None:
    found = owners(mul="other", m__a__f="a")
    assert found.find(f"{STEP}/m/a/f/mul") == layer("a")
    assert found.find("mul") == layer("other")


def test_a_function_that_two_layers_call_is_each_ones() -> None:
    # Traced while a called it, and again while b did; the newest comes first.
    found = owners(m__a__call="a", m__b__call="b", Tanh="b a")
    assert found.find(f"{STEP}/m/a/call/Tanh") == layer("a")
    assert found.find(f"{STEP}/m/b/call/Tanh") == layer("b")
    assert found.find("Tanh") == layer("b")
    assert found.find("Tanh", within="a") == layer("a")


def test_layers_within_a_function_keep_their_operations() -> None:
    found = owners(m__a__call="a", m__b__call="b", d__MatMul="b/d a/d")
    assert found.find(f"{STEP}/m/a/call/d/MatMul") == layer("a/d")
    assert found.find(f"{STEP}/m/b/call/d/MatMul") == layer("b/d")


def test_a_layer_that_is_contained_elsewhere_keeps_its_operations() -> None:
    found = owners(m__decoder__while="decoder", m__decoder__while__shared__MatMul="encoder/shared")
    assert found.find("m/decoder/while/body/_3/m/decoder/while/shared/MatMul") == layer("encoder/shared")


def test_the_gradient_of_a_function_belongs_to_the_layers_whose_operations_it_is_of() -> None:
    found = owners(d__Tanh="a/d", gradients__d__Tanh_grad__TanhGrad="a", PartitionedCall_1="^a")
    assert found.find("PartitionedCall_1/gradients/d/Tanh_grad/TanhGrad") == layer("a/d", "backward")
    unknown = owners(gradients__d__Tanh_grad__TanhGrad="a")
    assert unknown.find("gradients/d/Tanh_grad/TanhGrad") == layer("a", "backward")


@pytest.mark.parametrize("owner", [LOSS, METRICS, OPTIMIZER])
def test_who_is_no_layer_does_not_claim_what_it_calls(owner: str) -> None:
    ops = {STEP: [Frame(owner, "", "update")], "m/a/MatMul": [layer("a")]}
    assert OpOwners(ops).find(f"{STEP}/m/a/MatMul") == layer("a")


def test_updates_have_scopes_too() -> None:
    update = Frame(OPTIMIZER, "", "update")
    found = OpOwners({"adam/mul": [update], "m/a/MatMul": [layer("a")]})
    assert found.find(f"{STEP}/adam/ResourceApplyAdam") == update


def test_nested_names_are_told_by_whole_parts() -> None:
    found = owners(m__dense__MatMul="dense", m__dense_1__MatMul="dense_1")
    assert found.find("m/dense_1/renamed") == layer("dense_1")
    assert found.find("m/dense/renamed") == layer("dense")
    assert found.find("m/dense_11/renamed") is None


def test_without_operations_nothing_is_known() -> None:
    assert OpOwners({}).find("a/b") is None


@pytest.mark.parametrize("within", ["", METRICS])
def test_a_variables_initial_value_is_its_makers_not_whose_turn_it_is_when_it_is_copied(within: str) -> None:
    copied, made = Frame(METRICS, "", "update"), Frame(OPTIMIZER, "", "update")
    found = OpOwners({"adam/momentum/Initializer/zeros": [copied, made], "adam/zeros": [copied, made]})
    assert found.find("adam/momentum/Initializer/zeros", within) == made
    assert found.find("adam/zeros", within) == copied  # the newest
