"""What a variable or a lookup table holds whose value can grow."""

from __future__ import annotations

import pytest
import tensorflow as tf

from kerasmemwatch.attribution.live.growing_values import can_grow, growing_values


def held(value: object) -> list[tuple[str, int, str]]:
    assert can_grow(type(value))
    return [(each.kind, each.num_bytes, each.like) for each in growing_values([value])]


def test_a_variable_whose_shape_may_change() -> None:
    bank = tf.Variable(tf.zeros((0, 128)), shape=[None, 128], trainable=False)
    assert held(bank) == [("growing variable", 0, "float32[0, 128]")]
    bank.assign(tf.zeros((50, 128)))
    assert held(bank) == [("growing variable", 50 * 128 * 4, "float32[50, 128]")]
    assert held(tf.Variable([1.0])) == []


def test_a_lookup_table() -> None:
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, [0.0] * 16)
    table.insert(tf.range(10, dtype=tf.int64), tf.zeros((10, 16)))
    assert held(table) == [("growing table", 10 * (8 + 64), "10 keys, int64 to float32[16]")]
    dense = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, 0.0, empty_key=-1, deleted_key=-2)
    assert held(dense) == [("growing table", 0, "0 keys, int64 to float32")]


def test_other_classes_cannot_grow() -> None:
    assert not any(map(can_grow, (int, type(tf.constant(1)), tf.keras.layers.Dense, tf.lookup.StaticHashTable)))


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
    monkeypatch.setattr(type(table), "size", lambda self: 1 / 0)
    bank = tf.Variable([1.0], shape=[None])
    assert [each.owner is bank for each in growing_values([table, bank])] == [True]
