// The page: who holds the state, which panel redraws, which key does what. Starts everything: main().

class App {
  constructor(data, load) {
    this.data = data;
    this.load = load; // n -> a promise of photo n's source
    this.sources = [];
    this.lastRedraw = 0; // milliseconds from a change to everything drawn
  }

  async start() {
    this.whole = this.sources[0] = await this.load(0);
    this.usual = defaults(this.whole);
    this.state = { ...this.usual };
    this.panels = { picture: new Picture(this), heads: new Heads(this), answers: new Answers(this), numbers: new Numbers(this) };
    this.modes = { walk: new Walk(byId("walk"), this) };
    if (this.whole.can.tape) this.modes.tape = new Tape(byId("tape"), this);
    if (this.whole.kind === "live") this.drawing = new Drawing(byId("drawing"), this);
    byId("welcome").hidden = location.hash.length > 1; // whoever was given a link knows what to look at
    await this.change(readHash(location.hash, this.modes.walk)); // the link that was opened stays as it is
  }

  get source() {
    return this.state.twin ? this.whole.twin : this.whole;
  }

  // The token that is asked: the chosen one, or the other patch that q attends to most in the chosen head.
  key() {
    const { state, source } = this;
    if (state.key !== null) return state.key;
    const row = rowOf(source.attention(Math.max(state.layer, 0), state.head), source.config.T, state.patch);
    return otherPatch(row, state.patch);
  }

  async set(changes) {
    const done = this.change(changes); // all is drawn when set returns, but for a photo that is yet to be unpacked
    this.link();
    if (await done) this.link();
  }

  // Another layer for a while, as where the walk begins: look goes back to its own, unless one is chosen meanwhile.
  lendLayer(layer) {
    const own = this.state.layer;
    this.set({ layer });
    this.ownLayer = own;
  }

  // The layer of a change: its own, or that which look gets back.
  layerOf({ mode, layer }) {
    const back = mode === "look" ? this.ownLayer : undefined;
    if (mode === "look" || layer !== undefined) this.ownLayer = undefined;
    return layer ?? back ?? this.state.layer;
  }

  // Draws what has changed. A promise of true: that the state was changed only later.
  change(changes) {
    const photo = clamp(changes.photo ?? this.state.photo, 0, this.photos - 1);
    if (!this.sources[photo]) return this.fetch(photo, changes);
    this.began = performance.now();
    this.whole = this.sources[photo];
    const [before, next] = [this.state, { ...this.state, ...changes, layer: this.layerOf(changes) }];
    const { steps } = this.modes[next.mode] ?? this.modes.walk;
    this.state = tidy(next, this.whole, this.photos, steps.length);
    if (this.drawing) drawLike(this.whole, before, this.state);
    for (const source of [this.whole, this.whole.twin]) if (source) knockLike(source, this.state.knocked);
    this.redraw();
    return Promise.resolve(false);
  }

  get photos() {
    return this.data.kind === "photo" ? this.data.photos.length : 1;
  }

  async fetch(photo, changes) {
    byId("said").textContent = "Unpacking the photo ...";
    this.sources[photo] = await this.load(photo);
    await this.change(changes);
    return true;
  }

  // Walk and tape begin again where they were left.
  setMode(mode) {
    if (mode === "walk") this.modes.walk.enter();
    this.set({ mode, step: this.modes[mode]?.at ?? 0 });
  }

  redraw() {
    this.began ??= performance.now();
    const { state, panels } = this;
    this.frame();
    panels.picture.show();
    if (this.drawing) this.drawing.show();
    if (state.mode !== "look") {
      this.modes[state.mode].show();
      return this.measured();
    }
    panels.answers.show();
    panels.numbers.show();
    panels.heads.show(); // the wall says when it is done
  }

  measured() {
    if (this.began === null) return; // a wall that was still being drawn when the mode changed
    this.lastRedraw = performance.now() - this.began;
    this.began = null;
  }

  // The frame: which mode's button is down, which section is there.
  frame() {
    const { state, whole } = this;
    document.body.dataset.mode = state.mode;
    document.body.classList.toggle("live", whole.kind === "live");
    for (const mode of MODES) {
      byId(mode).hidden = mode !== state.mode;
      byId(`mode-${mode}`).setAttribute("aria-pressed", mode === state.mode);
    }
    byId("mode-tape").hidden = !whole.can.tape;
    byId("twin").hidden = !whole.can.twin;
    byId("twin").setAttribute("aria-pressed", state.twin);
    byId("twin-note").hidden = !state.twin || (whole.kind === "photo" && state.mode === "walk"); // that is the model's own
    byId("twin-lacks").hidden = whole.kind !== "photo";
    if (state.mode !== "look" || state.twin) byId("welcome").hidden = true;
    byId("photo").value = state.photo;
    const [what, whose] = whole.kind === "live" ? ["Digits", this.data.credit] : ["Photo", this.data.photos[state.photo].credit];
    byId("credit").textContent = whose && `${what}: ${whose}`;
  }

  knock() {
    const { layer, head } = this.state;
    if (this.source.can.knock && layer >= 0) this.set({ knocked: toggled(this.state.knocked, `${layer}.${head}`) });
  }

  next() {
    if (this.drawing) this.drawing.step(1);
    else this.set({ photo: (this.state.photo + 1) % this.photos });
  }

  get lessons() {
    return this.data.lessons;
  }

  lesson(number) {
    const title = this.data.lessons[String(number).padStart(2, "0")];
    return `Lesson ${String(number).padStart(2, "0")}${title ? `: ${title}` : ""}`;
  }

  // Safari takes a hundred changes of the link in 30 seconds: while a key is held down, only the last one is written.
  link() {
    clearTimeout(this.linking);
    const write = () => {
      this.linked = performance.now();
      history.replaceState(null, "", writeHash(this.state, this.usual));
    };
    if (performance.now() - (this.linked ?? -Infinity) > 400) write();
    else this.linking = setTimeout(write, 400);
  }
}

// Brings a source to the heads that the state says are out.
function knockLike(source, knocked) {
  const wanted = knocked.split(",").filter(Boolean);
  const toggle = (name) => source.knock(...name.split(".").map(Number));
  [...source.knocked].filter((name) => !wanted.includes(name)).forEach(toggle);
  wanted.filter((name) => !source.knocked.has(name)).forEach(toggle);
}

// Brings a live source to what the state says anew.
function drawLike(source, before, state) {
  if (state.drawing !== before.drawing) source.setDrawing(state.drawing);
  if (state.label !== before.label) source.setLabel(state.label);
  if (state.switched !== before.switched) source.setSwitched(state.switched);
}

// ---- Keys ----

const KEYS = {
  0: (app) => app.set({ patch: 0 }),
  "[": (app) => app.set({ layer: app.state.layer - 1 }),
  "]": (app) => app.set({ layer: app.state.layer + 1 }),
  ",": (app) => app.set({ head: app.state.head - 1 }),
  ".": (app) => app.set({ head: app.state.head + 1 }),
  v: (app) => app.set({ view: next(app.state.view, 1), mode: "look" }),
  V: (app) => app.set({ view: next(app.state.view, -1), mode: "look" }),
  l: (app) => app.set({ mode: "look" }),
  w: (app) => app.setMode("walk"),
  t: (app) => app.whole.can.tape && app.setMode("tape"),
  u: (app) => app.set({ twin: !app.state.twin }),
  k: (app) => app.knock(),
  n: (app) => app.next(),
  g: () => byId("words").showModal(),
  "?": () => byId("keys").showModal(),
  Escape: (app) => app.set(app.state.mode === "look" ? { key: null } : { mode: "look" }),
};

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function next(view, by) {
  const names = Object.keys(VIEWS);
  return names[(names.indexOf(view) + by + names.length) % names.length];
}

function onKey(app, event) {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("select, textarea, input[type=number], input[type=text]");
  if (typing && event.key !== "Escape") return;
  const mode = app.modes[app.state.mode];
  const taken = (mode && mode.key(event)) || (app.drawing && app.drawing.key(event)) || arrow(app, event) || letter(app, event);
  if (taken) event.preventDefault();
}

function arrow(app, event) {
  const step = ARROWS[event.key];
  if (!step || event.target.closest("input[type=range], [data-arrows]")) return false;
  const name = event.shiftKey ? "key" : "patch";
  const from = event.shiftKey ? app.key() : app.state.patch;
  app.set({ [name]: neighbour(from, step, app.source.config.grid) });
  return true;
}

// From CLS every arrow leads to patch 1; at an edge a patch stays where it is.
function neighbour(token, [down, right], [rows, columns]) {
  if (token === 0) return 1;
  const row = clamp(Math.floor((token - 1) / columns) + down, 0, rows - 1);
  return 1 + row * columns + clamp(((token - 1) % columns) + right, 0, columns - 1);
}

function letter(app, event) {
  if (!KEYS[event.key] || (event.key.length === 1 && !app.state.letters && event.key !== "?")) return false;
  KEYS[event.key](app);
  return true;
}

// ---- The start ----

function listen(app) {
  document.addEventListener("keydown", (event) => onKey(app, event));
  window.addEventListener("hashchange", () => app.set({ ...app.usual, ...readHash(location.hash, app.modes.walk) }));
  for (const mode of MODES) byId(`mode-${mode}`).addEventListener("click", () => app.setMode(mode));
  byId("twin").addEventListener("click", () => KEYS.u(app));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("glossary").addEventListener("click", () => byId("words").showModal());
  byId("start").addEventListener("click", () => app.set({ mode: "walk", step: 0 }));
  byId("dismiss").addEventListener("click", () => (byId("welcome").hidden = true));
  byId("letters").addEventListener("change", (event) => app.set({ letters: event.target.checked }));
  byId("photo").addEventListener("change", (event) => app.set({ photo: Number(event.target.value) }));
}

// The list of keys has those that do something on this page.
function listKeys({ whole: { can, kind }, photos }) {
  const has = { knock: can.knock, twin: can.twin, tape: can.tape, photos: photos > 1, drawing: kind === "live" };
  for (const node of document.querySelectorAll("[data-needs]")) node.hidden = !has[node.dataset.needs];
}

function introduce({ kind, photos = [], model }) {
  byId("model").textContent = model;
  photos.forEach(({ name }, n) => byId("photo").append(new Option(name, n)));
  byId("chooser").hidden = kind !== "photo" || photos.length < 2;
}

function sourceOf(data, n) {
  return data.kind === "live" ? Live.open(data) : Recorded.open(data, n);
}

async function main() {
  try {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("This browser cannot unpack the page's numbers (DecompressionStream): please open it in a newer one.");
    }
    const data = JSON.parse(byId("data").textContent);
    introduce(data);
    const app = new App(data, (n) => sourceOf(data, n));
    await app.start();
    listKeys(app);
    listen(app);
    window.minivit = {
      get state() { return app.state; },
      get source() { return app.source; },
      get map() { return VIEWS[app.state.view].map(app.source, app.state); },
      get lastRedraw() { return app.lastRedraw; },
      set: (hash) => app.set(readHash(hash, app.modes.walk)),
      app,
    };
    document.body.dataset.ready = "true";
  } catch (error) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = error.message;
    document.querySelector("main").hidden = true;
    throw error;
  }
}

main();
