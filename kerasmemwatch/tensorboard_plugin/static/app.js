// The page: which view of which runs is shown, kept in the address, and drawn again when something changes.

import { element, replaceContent } from './dom.js';
import { EMPTY, VIEWS, readHash, writeHash } from './link.js';
import { drawSections } from './views.js';

const TITLES = {
  overview: 'Overview',
  peak: 'Peak',
  timeline: 'Step timeline',
  layers: 'Layers',
  growth: 'Growth',
  compare: 'Compare',
};
const EVERY_MS = 15000;
const EMPTY_TEXT = 'model.fit(x, y, callbacks=[kerasmemwatch.MemoryWatch(log_dir="logs")])';

class App {
  constructor(body) {
    this.state = { ...EMPTY, ...readHash(topWindow().location.hash) };
    this.runs = [];
    this.request = 0;
    this.seen = '';
    this.listed = '';
    this.unread = false;
    this.devices = new Map(); // by run, the device that was chosen last
    this.status = element('p', { class: 'status', role: 'status', 'aria-live': 'polite' });
    this.panel = element('div', { id: 'view', role: 'tabpanel', tabindex: '0' });
    this.main = element('main', {}, this.panel);
    this.label = element('label', { for: 'run' });
    this.picker = element('select', {
      id: 'run',
      onchange: () => this.choose([...this.picker.selectedOptions].map((option) => option.value)),
      onblur: () => this.drawControls(),
    });
    this.chip = element('button', {
      class: 'chip',
      onclick: () => {
        this.panel.focus(); // the button goes
        this.go({ layer: '' });
      },
    });
    this.tabs = VIEWS.map((view) =>
      element(
        'button',
        {
          role: 'tab',
          id: `tab-${view}`,
          'aria-controls': 'view',
          onclick: () => this.go({ view }),
          onkeydown: (event) => this.moveTab(event, view),
        },
        TITLES[view],
      ),
    );
    const header = element(
      'header',
      {},
      element('h1', { class: 'unseen' }, 'Memory'),
      element('div', { class: 'controls' }, this.label, this.picker, this.chip),
      element('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Views' }, ...this.tabs),
    );
    this.drawControls();
    replaceContent(body, header, this.status, this.main);
    watchTheme(() => this.show());
    topWindow().addEventListener('hashchange', () => {
      const linked = readHash(topWindow().location.hash);
      if (JSON.stringify(linked) !== JSON.stringify(this.state)) this.go(linked, false);
    });
    setInterval(() => document.hidden || this.refresh(), EVERY_MS);
    document.addEventListener('visibilitychange', () => document.hidden || this.refresh());
  }

  /** Look which runs there are, and draw again if something was added to what is shown. */
  async refresh() {
    try {
      this.runs = (await fetchJson('runs')).runs;
    } catch (error) {
      this.status.textContent = `The list of runs could not be read: ${error.message}`;
      this.unread = true;
      return;
    }
    if (this.unread) this.status.textContent = '';
    this.unread = false;
    const seen = JSON.stringify(this.runs.filter((run) => this.shown().includes(run.name)));
    this.drawControls();
    if (seen !== this.seen || !this.runs.length) {
      this.seen = seen;
      await this.show();
    }
  }

  /** The runs that are drawn: those of the address that there are, else the newest. */
  shown() {
    const names = this.runs.map((run) => run.name);
    const chosen = this.state.runs.filter((name) => names.includes(name));
    const most = this.state.view === 'compare' ? Math.max(chosen.length, 2) : 1;
    return [...chosen, ...names.filter((name) => !chosen.includes(name))].slice(0, most);
  }

  /** Show other runs: a step is one run's, and so is a device, which is then as it was chosen for that run. */
  choose(runs) {
    return this.go({ runs, step: null, device: this.devices.get(runs[0]) ?? '' });
  }

  go(change, write = true) {
    this.state = { ...this.state, ...change };
    this.devices.set(this.shown()[0], this.state.device);
    if (write) {
      const top = topWindow();
      top.history.replaceState(top.history.state, '', writeHash(top.location.hash, this.state));
    }
    this.seen = '';
    this.drawControls();
    return this.show();
  }

  async show() {
    this.request += 1;
    const request = this.request;
    this.drawTabs();
    if (!this.runs.length) {
      replaceContent(this.panel, emptyState());
      this.status.textContent = '';
      return;
    }
    const names = this.shown();
    this.main.setAttribute('aria-busy', 'true');
    try {
      const content = await fetchJson(this.state.view, {
        run: names,
        theme: theme(),
        step: this.state.step,
        by: this.state.by,
        layer: this.state.layer,
        device: this.state.device,
      });
      if (request !== this.request) return;
      this.status.textContent = '';
      await drawSections(this.panel, content.sections, {
        state: this.state,
        subject: [names, this.state.step, this.state.device],
        say: (words) => { this.status.textContent = words; },
        go: (change) => this.go(change),
        fetchMore: (route, values) =>
          fetchJson(route, { run: names, theme: theme(), step: this.state.step, device: this.state.device, ...values }),
      });
    } catch (error) {
      if (request !== this.request) return;
      replaceContent(this.panel, element('p', { class: 'problem', role: 'alert' }, error.message));
    } finally {
      if (request === this.request) this.main.removeAttribute('aria-busy');
    }
  }

  drawTabs() {
    const chosen = VIEWS.indexOf(this.state.view);
    const had = this.tabs.includes(document.activeElement);
    this.tabs.forEach((tab, index) => {
      tab.setAttribute('aria-selected', index === chosen ? 'true' : 'false');
      tab.setAttribute('tabindex', index === chosen ? '0' : '-1');
    });
    this.panel.setAttribute('aria-labelledby', this.tabs[chosen].id);
    if (had) this.tabs[chosen].focus();
  }

  moveTab(event, view) {
    const last = VIEWS.length - 1;
    const index = VIEWS.indexOf(view);
    const moves = { ArrowRight: (index + 1) % VIEWS.length, ArrowLeft: (index + last) % VIEWS.length, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.go({ view: VIEWS[moves[event.key]] });
  }

  drawControls() {
    this.chip.hidden = !this.state.layer;
    this.chip.textContent = `${this.state.layer} ✕`;
    this.chip.setAttribute('aria-label', `Show all layers, not only ${this.state.layer}`);
    if (document.activeElement === this.picker) return; // not under somebody's hands
    const several = this.state.view === 'compare';
    const names = this.shown();
    const listed = JSON.stringify([several, names, this.runs.map((run) => [run.name, Boolean(run.problem)])]);
    if (listed === this.listed) return;
    this.listed = listed;
    this.label.textContent = several ? 'Runs' : 'Run';
    this.label.hidden = this.picker.hidden = !this.runs.length;
    this.picker.multiple = several;
    this.picker.size = several ? Math.min(6, Math.max(2, this.runs.length)) : 0;
    const options = this.runs.map((run) =>
      element('option', { value: run.name, selected: names.includes(run.name) }, run.problem ? `${run.name} (damaged)` : run.name),
    );
    replaceContent(this.picker, ...options);
  }
}

function emptyState() {
  return element(
    'section',
    { class: 'empty' },
    element('h2', {}, 'No recording here yet'),
    element('p', {}, 'Put a watch into your training, with this log directory, and look again:'),
    element('pre', {}, EMPTY_TEXT),
    element('p', {}, 'Or start a script unchanged: kerasmemwatch run --log-dir logs train.py'),
  );
}

async function fetchJson(route, values = {}) {
  const url = new URL(`./${route}`, import.meta.url);
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== '') url.searchParams.append(name, each);
    }
  }
  const response = await fetch(url);
  let content = {};
  try {
    content = await response.json();
  } catch {
    content = { error: `TensorBoard answered ${response.status} and no JSON.` };
  }
  if (!response.ok) throw new Error(content.error ?? `TensorBoard answered ${response.status}.`);
  return content;
}

/** TensorBoard's own window, whose address and theme are ours too; this one's where that cannot be reached. */
function topWindow() {
  try {
    return window.parent.location.hash === undefined ? window : window.parent;
  } catch {
    return window;
  }
}

function theme() {
  const { body } = topWindow().document;
  if (topWindow() !== window) return body.classList.contains('dark-mode') ? 'dark' : 'light';
  return window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

function watchTheme(changed) {
  const apply = () => {
    if (document.documentElement.dataset.theme === theme()) return false;
    document.documentElement.dataset.theme = theme();
    return true;
  };
  apply();
  new MutationObserver(() => apply() && changed()).observe(topWindow().document.body, { attributeFilter: ['class'] });
}

export async function start(body) {
  await new App(body).refresh();
}
