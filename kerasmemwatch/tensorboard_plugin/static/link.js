// What the page shows, as a part of the address, so that a link leads to the same view. Pure.

export const VIEWS = ['overview', 'peak', 'timeline', 'layers', 'growth', 'compare'];
export const EMPTY = { view: 'overview', runs: [], step: null, by: 'category', layer: '', device: '' };

/** "view=peak&run=a&run=b" -> state; what is missing or unknown is as in EMPTY. */
export function parseLink(text) {
  const values = new URLSearchParams(text);
  const step = Number.parseFloat(values.get('step') ?? ''); // half a step more for a gap between two
  return {
    view: VIEWS.includes(values.get('view')) ? values.get('view') : EMPTY.view,
    runs: values.getAll('run'),
    step: Number.isSafeInteger(2 * step) && step > 0 ? step : null,
    by: values.get('by') === 'layer' ? 'layer' : 'category',
    layer: values.get('layer') ?? '',
    device: values.get('device') ?? '',
  };
}

/** The other way; what is as in EMPTY is left out. */
export function formatLink(state) {
  const values = new URLSearchParams();
  if (state.view !== EMPTY.view) values.set('view', state.view);
  for (const run of state.runs) values.append('run', run);
  if (state.step !== null) values.set('step', String(state.step));
  if (state.by !== EMPTY.by) values.set('by', state.by);
  if (state.layer) values.set('layer', state.layer);
  if (state.device) values.set('device', state.device);
  return values.toString();
}

const MARK = 'memory=';

/** Ours within TensorBoard's own "#kerasmemwatch&...". */
export function readHash(hash) {
  const part = hash.replace(/^#/, '').split('&').find((each) => each.startsWith(MARK));
  try {
    return parseLink(part ? decodeURIComponent(part.slice(MARK.length)) : '');
  } catch {
    return { ...EMPTY, runs: [] };
  }
}

export function writeHash(hash, state) {
  const others = hash.replace(/^#/, '').split('&').filter((each) => each && !each.startsWith(MARK));
  const link = formatLink(state);
  return `#${[...others, ...(link ? [MARK + encodeURIComponent(link)] : [])].join('&')}`;
}
