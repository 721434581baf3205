// Draws the sections of a view: tiles, figures, tables, notes, choices. They come from the server as data.

import { formatCell } from './bytes.js';
import { element, replaceContent } from './dom.js';
import { parents, searched, sorted, toCsv, unfolded, within } from './rows.js';

const MOST_ROWS = 200;
const CONFIG = {
  responsive: true,
  displaylogo: false,
  // Nothing is sent anywhere: plotly's own button for that is left out.
  showSendToCloud: false,
  plotlyServerURL: '',
  // Fewer stops for those who go through the page by keyboard, who zoom with the others.
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
};
const drawnIn = new WeakMap();
let plotly = null;

/**
 * Draw all sections; `page` has the state, `go` to change it and `fetchMore` to ask for what a zoom needs.
 *
 * What is there already is changed in place, so that the focus, a search, an order and a zoom outlive a refresh.
 */
export async function drawSections(parent, sections, page) {
  const before = drawnIn.get(parent) ?? new Map();
  const now = new Map(sections.map((section, index) => {
    // A table is the same one when its title names a newer step.
    const key = JSON.stringify([index, section.kind, section.file ?? section.title, page.state.view, section.zoom ? page.subject : null]);
    return [key, before.get(key) ?? made(section.kind)];
  }));
  drawnIn.set(parent, now);
  for (const [key, { drop }] of before) if (!now.has(key)) drop();
  const drawn = [...now.values()];
  if (drawn.length !== parent.children.length || drawn.some(({ node }, index) => node !== parent.children[index])) {
    const focused = document.activeElement;
    replaceContent(parent, ...drawn.map(({ node }) => node));
    // What is taken out and put back loses the focus.
    if (parent.contains(focused)) focused.focus({ preventScroll: true });
  }
  await Promise.all(drawn.map(({ update }, index) => update(sections[index], page)));
}

/** An element for a section, and what fills it with the section's newest data. */
function made(kind) {
  const node = element('section', { class: kind });
  return { node, update: MAKE[kind](node), drop: () => node.querySelectorAll('.plot').forEach((plot) => window.Plotly?.purge(plot)) };
}

const MAKE = { tiles: makeTiles, figure: makeFigure, table: makeTable, notes: makeNotes, choice: makeChoice };

function heading(section) {
  return section.title ? element('h2', {}, section.title) : null;
}

function makeTiles(node) {
  return (section) => {
    const tiles = section.tiles.map((tile) =>
      element(
        'div',
        { class: `tile ${tile.tone ?? ''}` },
        element('dt', {}, tile.label),
        element(
          'dd',
          {},
          tile.tone === 'warning' ? element('b', { class: 'unseen' }, 'Warning: ') : null,
          element('strong', {}, tile.value),
          element('span', {}, tile.detail ?? ''),
        ),
      ),
    );
    replaceContent(node, heading(section), element('dl', {}, ...tiles));
  };
}

function makeNotes(node) {
  return (section) => {
    const notes = section.notes.map((note) => element('li', {}, note));
    const trace = (section.trace ?? []).flatMap(([line, isSuspect]) => [isSuspect ? element('strong', {}, line) : line, '\n']);
    replaceContent(
      node,
      heading(section),
      notes.length ? element('ul', {}, ...notes) : element('p', {}, section.empty ?? ''),
      trace.length ? element('pre', { class: 'trace' }, ...trace) : null,
    );
  };
}

function makeChoice(node) {
  let [section, page, listed] = [null, null, ''];
  const label = element('label', {});
  const select = element('select', {
    onchange: () => page.go({ [section.name]: section.number ? Number(select.value) : select.value }),
  });
  replaceContent(node, label, select);
  return (next, nextPage) => {
    [section, page] = [next, nextPage];
    select.id = `choice-${section.name}`;
    label.htmlFor = select.id;
    label.textContent = section.title;
    if (JSON.stringify(section.options) !== listed) {
      listed = JSON.stringify(section.options);
      replaceContent(select, ...section.options.map(([value, name]) => element('option', { value: String(value) }, name)));
    }
    select.value = String(section.value);
  };
}

function makeFigure(node) {
  let [section, page, drawn, wanted, shown] = [null, null, '', 0, null];
  const plot = element('div', { class: 'plot', role: 'figure', tabindex: '0' });
  const config = () => ({ ...CONFIG, scrollZoom: Boolean(section.zoom) });

  /** Ask for the details of what a window shows, and draw the last one only. */
  const look = async () => {
    wanted += 1;
    const mine = wanted;
    const [from, to] = shown ?? [null, null];
    try {
      const values = { from, to, width: plot.clientWidth, by: page.state.by, layer: page.state.layer };
      const { figure } = await page.fetchMore(section.zoom, values);
      if (mine !== wanted) return;
      const layout = { ...figure.layout, xaxis: { ...figure.layout.xaxis, range: shown ?? undefined } };
      await (await loadPlotly()).react(plot, figure.data, layout, config());
    } catch (error) {
      page.say(`The details of this part could not be read: ${error.message}`);
    }
  };
  const listen = () => {
    plot.on('plotly_click', (event) => {
      const path = event.points?.[0]?.customdata;
      const layer = Array.isArray(path) ? path[0] : path;
      if (section.pick && typeof layer === 'string' && layer) page.go({ layer });
    });
    plot.on('plotly_relayout', (change) => {
      if (!section.zoom || !Object.keys(change).some((key) => key.startsWith('xaxis.'))) return;
      shown = change['xaxis.autorange'] ? null : plot.layout.xaxis.range;
      look();
    });
  };
  return async (next, nextPage) => {
    const first = !section;
    [section, page] = [next, nextPage];
    plot.setAttribute('aria-label', section.text);
    if (first) replaceContent(node, heading(section), plot, section.help ? element('p', { class: 'help' }, section.help) : null);
    const figure = JSON.stringify(section.figure);
    if (figure === drawn) return;
    const library = await loadPlotly();
    if (next !== section) return;
    if (shown) await look();
    else await library.react(plot, section.figure.data, section.figure.layout, config());
    if (!drawn) listen();
    drawn = figure;
  };
}

function makeTable(node) {
  let [section, page, columns, above, most] = [null, null, '', new Set(), []];
  const view = { words: '', column: 0, descending: true, folded: new Set(), all: false };
  const status = element('p', { role: 'status', 'aria-live': 'polite', class: 'help' });
  const more = element('button', { onclick: () => { view.all = true; region.focus(); draw(); } }, 'Show all');
  const table = element('table', {});
  const region = element('div', { class: 'scroll', role: 'region', tabindex: '0' }, table);
  const words = element('input', {
    type: 'search',
    placeholder: 'Search',
    oninput: () => {
      view.words = words.value;
      draw();
    },
  });
  const title = element('h2', {});
  const download = element('button', { onclick: () => save(section) }, 'Download CSV');
  replaceContent(node, title, element('div', { class: 'controls' }, words, download), element('div', { class: 'controls' }, status, more), region);

  const draw = () => {
    const rows = searched(section.pick ? within(section.rows, page.state.layer) : section.rows, view.words);
    const sortedRows = unfolded(sorted(rows, view.column, view.descending), view.folded);
    const some = view.all ? sortedRows : sortedRows.slice(0, MOST_ROWS);
    status.textContent = `${some.length} of ${section.rows.length} rows`;
    more.hidden = some.length === sortedRows.length;
    const focused = table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    replaceContent(table, element('thead', {}, header()), element('tbody', {}, ...some.map(line)));
    if (focused === null) return;
    const again = [...table.querySelectorAll('button')].find((button) => button.dataset.key === focused);
    (again ?? region).focus({ preventScroll: true });
  };
  const header = () =>
    element(
      'tr',
      {},
      ...section.columns.map((column, index) =>
        element(
          'th',
          {
            scope: 'col',
            class: column.kind,
            'aria-sort': index !== view.column ? 'none' : view.descending ? 'descending' : 'ascending',
          },
          element('button', { 'data-key': `order ${index}`, onclick: () => order(index), title: column.help || null }, column.label),
        ),
      ),
    );
  const order = (index) => {
    view.descending = index === view.column ? !view.descending : section.columns[index].kind !== 'text';
    view.column = index;
    draw();
  };
  const line = (row) =>
    element('tr', {}, ...row.slice(0, section.columns.length).map((cell, index) => (index ? cellOf(cell, index) : layerOf(row))));
  const layerOf = (row) => {
    const path = String(row[0]);
    const fold = above.has(path)
      ? element(
          'button',
          {
            class: 'fold',
            'data-key': `fold ${path}`,
            'aria-expanded': view.folded.has(path) ? 'false' : 'true',
            'aria-label': `Layers within ${path}`,
            onclick: () => {
              if (!view.folded.delete(path)) view.folded.add(path);
              draw();
            },
          },
          view.folded.has(path) ? '▸' : '▾',
        )
      : null;
    const name = section.pick
      ? element('button', { class: 'link', 'data-key': `pick ${path}`, onclick: () => page.go({ layer: path }) }, path)
      : path;
    return element('th', { scope: 'row' }, fold, name);
  };
  const cellOf = (cell, index) => {
    const { kind } = section.columns[index];
    const bar = kind === 'bytes' && most[index] && cell ? `--share: ${(100 * cell) / most[index]}%` : null;
    return element('td', { class: kind, style: bar, title: kind === 'bytes' && cell ? `${cell.toLocaleString('en')} bytes` : null }, formatCell(cell, kind));
  };
  return (next, nextPage) => {
    [section, page] = [next, nextPage];
    if (JSON.stringify(section.columns) !== columns) {
      columns = JSON.stringify(section.columns);
      Object.assign(view, { column: section.order ?? 0, descending: true });
    }
    title.textContent = section.title;
    words.setAttribute('aria-label', `Search: ${section.title}`);
    table.setAttribute('aria-label', section.title);
    region.setAttribute('aria-label', `Table: ${section.title}`);
    above = parents(section.rows);
    most = section.columns.map((column, index) => Math.max(0, ...section.rows.map((row) => Number(row[index]) || 0)));
    draw();
  };
}

function save(section) {
  const text = toCsv(section.columns.map((column) => column.key ?? column.label), section.rows.map((row) => row.slice(0, section.columns.length)));
  const address = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  const link = element('a', { href: address, download: `${section.file ?? 'memory'}.csv` });
  link.click();
  URL.revokeObjectURL(address);
}

function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const script = element('script', { src: new URL('./plotly.js', import.meta.url).href });
    script.addEventListener('load', () => resolve(window.Plotly));
    script.addEventListener('error', () => {
      plotly = null; // so that the next view tries again
      reject(new Error('The library that draws figures could not be loaded.'));
    });
    document.head.append(script);
  });
  return plotly;
}
