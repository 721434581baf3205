// Draws the figures of the page, follows the theme, and sorts and searches the table.
'use strict';

(() => {
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    // Nothing is sent anywhere: plotly's own button for that is left out.
    showSendToCloud: false,
    plotlyServerURL: '',
    // Fewer stops for those who go through the page by keyboard.
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'zoomIn2d', 'zoomOut2d'],
  };
  const root = document.documentElement;
  const toggle = document.getElementById('theme');
  const plots = [...document.querySelectorAll('[data-figure]')].map((node) => ({
    node,
    value: JSON.parse(document.getElementById(node.dataset.figure).textContent),
  }));

  function inTheme({ figure, dark }, theme) {
    const drawn = structuredClone(figure);
    if (theme === 'dark') {
      for (const [path, value] of dark) {
        const last = path[path.length - 1];
        path.slice(0, -1).reduce((place, key) => place[key], drawn)[last] = value;
      }
    }
    return drawn;
  }

  let turn = 0;
  async function draw(theme) {
    turn += 1;
    const mine = turn;
    root.dataset.shown = theme;
    toggle.textContent = theme === 'dark' ? 'Light theme' : 'Dark theme';
    for (const { node, value } of plots) {
      if (mine !== turn) return;
      if (node.closest('[hidden]')) continue; // of another device
      const { data, layout } = inTheme(value, theme);
      await Plotly.react(node, data, layout, CONFIG);
      // One figure after the other, so that the page answers in between.
      await new Promise((resolve) => setTimeout(resolve));
    }
    root.dataset.drawn = theme;
  }

  const system = matchMedia('(prefers-color-scheme: dark)');
  let chosen = root.dataset.theme === 'auto' ? null : root.dataset.theme;
  const shown = () => chosen ?? (system.matches ? 'dark' : 'light');
  toggle.hidden = false;
  toggle.addEventListener('click', () => {
    chosen = shown() === 'dark' ? 'light' : 'dark';
    draw(shown());
  });
  system.addEventListener('change', () => chosen === null && draw(shown()));

  // What is of a device is shown if it is chosen, and the choice kept in the address, so that a reload has it.
  function devices() {
    const picker = document.getElementById('device');
    if (!picker) return;
    const parts = [...document.querySelectorAll('[data-device]')];
    const show = () => parts.forEach((part) => { part.hidden = part.dataset.device !== picker.value; });
    const linked = new URLSearchParams(location.hash.slice(1)).get('device');
    const known = [...picker.options].find((option) => option.text === linked);
    picker.value = known ? known.value : '0';
    show();
    document.getElementById('devices').hidden = false;
    picker.addEventListener('change', () => {
      show();
      history.replaceState(null, '', `#${new URLSearchParams({ device: picker.selectedOptions[0].text })}`);
      draw(shown());
    });
  }

  function table(section) {
    const body = section.querySelector('tbody');
    if (!body) return;
    const rows = [...body.rows];
    const headings = [...section.querySelectorAll('thead th')];
    const search = section.querySelector('input[type=search]');
    const count = section.querySelector('[role=status]');

    function find() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const row of rows) {
        const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        found += !row.hidden;
      }
      count.textContent = `${found} of ${rows.length}`;
    }

    // What is unknown comes last, whichever way the others are sorted.
    function sort(index) {
      const isText = index < 2;
      const before = headings[index].getAttribute('aria-sort');
      const down = before ? before === 'ascending' : !isText;
      headings.forEach((heading) => heading.removeAttribute('aria-sort'));
      headings[index].setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const key = (row) => {
        const cell = row.cells[index];
        if (isText) return cell.textContent;
        return 'value' in cell.dataset ? Number(cell.dataset.value) : null;
      };
      const order = (a, b) => (isText ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
      const keyed = rows.map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : order(a, b)));
      body.append(...keyed.map(([, row]) => row));
    }

    headings.forEach((heading, index) => heading.firstElementChild.addEventListener('click', () => sort(index)));
    search.addEventListener('input', find);
    find();
  }

  document.getElementById('script').remove();
  document.querySelectorAll('section.layers').forEach(table);
  devices();
  draw(shown());
})();
