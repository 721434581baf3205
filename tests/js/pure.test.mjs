import assert from 'node:assert/strict';
import test from 'node:test';

import { formatBytes, formatCell, formatShare } from '../../kerasmemwatch/tensorboard_plugin/static/bytes.js';
import { EMPTY, formatLink, parseLink, readHash, writeHash } from '../../kerasmemwatch/tensorboard_plugin/static/link.js';
import { parents, searched, sorted, toCsv, unfolded, within } from '../../kerasmemwatch/tensorboard_plugin/static/rows.js';

const ROWS = [
  ['encoder', 'Model', 10],
  ['encoder/a', 'Dense', 30],
  ['encoder/a/b', 'Dense', null],
  ['encoder2', 'Conv2D', 20],
];

test('sizes have one unit and one digit', () => {
  const sizes = [0, 1, 1023, 1024, 1536, 1048575, 1048576, 5 * 1024 ** 4, -2048];
  const texts = ['0 B', '1 B', '1023 B', '1.0 KiB', '1.5 KiB', '1.0 MiB', '1.0 MiB', '5.0 TiB', '-2.0 KiB'];
  assert.deepEqual(sizes.map(formatBytes), texts);
});

test('what is unknown is never 0', () => {
  assert.deepEqual([null, undefined, NaN].map(formatBytes), ['unknown', 'unknown', 'unknown']);
  assert.equal(formatShare(null), 'unknown');
  assert.deepEqual(['bytes', 'share', 'number'].map((kind) => formatCell(null, kind)), ['unknown', 'unknown', 'unknown']);
  assert.deepEqual(['bytes', 'share', 'number'].map((kind) => formatCell(0, kind)), ['-', '-', '0']);
  assert.equal(formatCell(0.0001, 'share'), '<0.1%');
});

test('a link leads back to what was shown', () => {
  const states = [
    { ...EMPTY, runs: [] },
    { view: 'compare', runs: ['a b', 'x&run=y', '<img onerror=1>'], step: 20.5, by: 'layer', layer: 'a/b=c', device: 'GPU host (pinned)&x' },
  ];
  for (const state of states) {
    assert.deepEqual(parseLink(formatLink(state)), state);
    assert.deepEqual(readHash(writeHash('#kerasmemwatch&other=1', state)), state);
  }
});

test('TensorBoard keeps its own part of the address', () => {
  const state = { ...EMPTY, view: 'peak', runs: ['r'] };
  const hash = writeHash('#kerasmemwatch&tagFilter=x', state);
  assert.match(hash, /^#kerasmemwatch&tagFilter=x&memory=/);
  assert.equal(writeHash(hash, { ...EMPTY, runs: [] }), '#kerasmemwatch&tagFilter=x');
});

test('a damaged link shows the overview', () => {
  assert.deepEqual(parseLink('view=nothing&step=-3&by=x'), { ...EMPTY, runs: [] });
  assert.deepEqual(readHash('#kerasmemwatch&memory=%E0%A4%A'), { ...EMPTY, runs: [] });
});

test('rows are found by their words', () => {
  assert.deepEqual(searched(ROWS, 'DENSE b').map((row) => row[0]), ['encoder/a/b']);
  assert.equal(searched(ROWS, '  ').length, 4);
});

test('a layer has what is within it, not what begins like it', () => {
  assert.deepEqual(within(ROWS, 'encoder').map((row) => row[0]), ['encoder', 'encoder/a', 'encoder/a/b']);
  assert.equal(within(ROWS, '').length, 4);
});

test('unknown values are last, whichever the order', () => {
  assert.deepEqual(sorted(ROWS, 2, true).map((row) => row[2]), [30, 20, 10, null]);
  assert.deepEqual(sorted(ROWS, 2, false).map((row) => row[2]), [10, 20, 30, null]);
  assert.deepEqual(sorted(ROWS, 1, false).map((row) => row[0]), ['encoder2', 'encoder/a', 'encoder/a/b', 'encoder']);
});

test('folding hides what is below', () => {
  assert.deepEqual([...parents(ROWS)], ['encoder', 'encoder/a']);
  assert.deepEqual(unfolded(ROWS, new Set(['encoder/a'])).map((row) => row[0]), ['encoder', 'encoder/a', 'encoder2']);
});

test('a cell is neither a formula nor two cells', () => {
  assert.equal(toCsv(['layer', 'bytes'], [['=1+1', 5], ['a,"b"', -3]]), "layer,bytes\r\n'=1+1,5\r\n\"a,\"\"b\"\"\",-3\r\n");
});
