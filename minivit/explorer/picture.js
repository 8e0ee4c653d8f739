// The left column: which view lies over the photo, the photo itself with its two chosen tokens, the legend, what is said.

class Picture {
  constructor(app) {
    this.app = app;
    this.grid = new PatchGrid(byId("map"), (patch, shift) => this.choose(patch, shift));
    this.drawn = new Map(); // what a source gave as picture -> what a canvas can draw
    for (const [name, view] of Object.entries(VIEWS)) byId("view").append(new Option(view.title, name));
    byId("view").addEventListener("change", (event) => app.set({ view: event.target.value }));
    byId("opacity").addEventListener("input", (event) => app.set({ opacity: Number(event.target.value) }));
    byId("cls").addEventListener("click", (event) => this.choose(0, event.shiftKey));
    byId("patch").addEventListener("change", (event) => app.set({ patch: Number(event.target.value) }));
    byId("key").addEventListener("change", (event) => app.set({ key: numberOrNull(event.target.value) }));
    new ResizeObserver(() => this.show()).observe(byId("map"));
  }

  choose(token, shift) {
    this.app.set(shift || byId("click-k").checked ? { key: token } : { patch: token });
  }

  show() {
    const { state, source } = this.app;
    if (!source) return;
    const view = VIEWS[state.view];
    const map = this.map(view);
    const key = this.app.key();
    this.ratio(source);
    this.grid.draw({ ...state, picture: this.picture(), map, source, key, opacity: state.opacity / 100 });
    byId("view").value = state.view;
    byId("opacity").value = state.opacity;
    byId("about").textContent = this.about(view);
    byId("lesson").textContent = `This map: ${this.app.lesson(view.lesson)}`;
    for (const [id, token] of [["patch", state.patch], ["key", key]]) {
      byId(id).max = source.config.N;
      byId(id).value = token;
    }
    byId("cls").setAttribute("aria-pressed", state.patch === 0);
    this.legend(map, view);
    this.say(map, view, key);
  }

  // Occlusion of a drawing takes a forward pass a patch: it waits until the pen rests.
  map(view) {
    const { source, state } = this.app;
    clearTimeout(this.resting);
    this.waits = view === VIEWS.occlusion && source.occluded === false;
    if (!this.waits) return view.map(source, state);
    this.resting = setTimeout(() => {
      source.occlusion();
      this.app.redraw();
    }, 150);
    return null;
  }

  // A photo keeps its own shape; the style makes it as large as the window allows.
  ratio({ config }) {
    const [rows, columns] = config.grid;
    byId("map").style.setProperty("--ratio", (columns * config.P[1]) / (rows * config.P[0]));
  }

  picture() {
    const given = this.app.whole.picture;
    if (!this.drawn.has(given)) {
      if (typeof given !== "string") this.drawn.clear(); // a drawing's pictures do not come back
      this.drawn.set(given, drawable(given, () => this.app.redraw()));
    }
    const image = this.drawn.get(given);
    return image.complete === false ? null : image;
  }

  legend(map, view) {
    const { state, source } = this.app;
    const scale = map && map.values;
    byId("scale").hidden = !scale;
    byId("cls-value").textContent = scale && map.cls !== null ? brief(map.cls) : "";
    byId("legend-note").textContent = this.legendNote(map);
    if (!scale) return;
    const [low, high] = ends(map);
    byId("low").textContent = low > 0 && low < 1e-3 * high ? "≈ 0" : format(low);
    byId("high").textContent = format(high);
    const perPatch = map.rows === source.config.grid[0];
    paintLegend(byId("bar"), map, perPatch && state.patch ? valueAt(map, source, state.patch) : null);
  }

  about({ sentence, title }) {
    const { source, state } = this.app;
    const text = typeof sentence === "function" ? sentence(source) : sentence;
    const unused = source.knobs?.published && ["attention", "attended", "mean", "rollout"].includes(state.view);
    return unused ? `${capital(title)}. With the einsum "nhn,nhd->nhd" a token takes its own value alone.` : text;
  }

  legendNote(map) {
    const { state } = this.app;
    if (this.waits) return "...";
    if (!map) return state.view === "photo" ? "" : `${state.twin ? "Of the untrained twin" : "Here"} this page has no such numbers.`;
    if (!map.shares) return [...this.legendNotes(map, this.app)].join(" ");
    const shares = Array.from(map.shares, (share) => `${Math.round(100 * share)} %`).join(", ");
    return `Red, green, blue: ${shares} of the patches' variance. Equal colours agree on these axes alone.`;
  }

  *legendNotes(map, { source, state }) {
    if (map.signed) yield "White is 0, blue below, orange above.";
    if (map.rows !== source.config.grid[0]) {
      yield "The bar is of single pixels. The norm of dx is the root of the sum of their squares.";
    }
    const [low, high] = ends(map);
    if (map.cls !== null && (map.cls < low || map.cls > high)) {
      const shares = map.unit === "attention" && state.view !== "attended"; // that sum to 1
      const rest = shares ? `; all patches get ${percent(1 - map.cls)}` : "";
      yield `CLS is ${map.cls > high ? "above" : "below"} the bar${rest}.`;
    }
  }

  say(map, view, key) {
    const { state } = this.app;
    const where = `${view.layer ? `${capital(layerName(state.layer))}` : "The whole model"}${view.head ? `, head ${state.head}` : ""}`;
    byId("map").setAttribute("aria-label", `Patches of the picture; chosen: ${tokenName(state.patch)}${this.place(state.patch)}`);
    const answer = state.knocked && state.mode === "look" && this.app.source.can.knock ? [this.app.panels.answers.withoutHeads()] : [];
    const lines = [`${where}${map ? `: ${map.unit}` : ""}`, ...this.readings(map, { q: state.patch, k: key }), ...answer];
    byId("said").replaceChildren(...lines.map((line) => element("span", {}, ...[line].flat())));
  }

  place(token) {
    if (token === 0) return "";
    const [, columns] = this.app.source.config.grid;
    return ` (row ${Math.floor((token - 1) / columns)}, column ${(token - 1) % columns}, from 0)`;
  }

  // Who sees the frames sees where they are; who hears the page is told.
  readings(map, tokens) {
    return Object.entries(tokens).map(([letter, token]) => {
      const place = element("span", { class: "aloud" }, this.place(token));
      return [`${letter} ${tokenName(token)}`, place, this.reading(map, token)];
    });
  }

  reading(map, token) {
    if (map && map.shares && token > 0) {
      return `: ${Array.from(map.coordinates.subarray(3 * (token - 1), 3 * token), brief).join(", ")}`;
    }
    const value = valueAt(map, this.app.source, token);
    const ofPixels = map && map.rows !== this.app.source.config.grid[0] ? ", sum of its pixels" : "";
    return value === null ? "" : `: ${format(value)}${ofPixels}`;
  }
}
