// Which layer and which head: two sliders, and a wall of what the chosen token attends to in every head of every layer.

class Heads {
  constructor(app) {
    this.app = app;
    this.cells = [];
    byId("layer").addEventListener("input", (event) => app.set({ layer: Number(event.target.value) }));
    byId("head").addEventListener("input", (event) => app.set({ head: Number(event.target.value) }));
    byId("knock").addEventListener("click", () => app.knock());
    byId("wall").addEventListener("keydown", (event) => this.key(event));
  }

  show() {
    const { state, source } = this.app;
    const { L, h } = source.config;
    this.slider("layer", Math.min(state.layer, 0), L - 1, state.layer, layerName(state.layer));
    byId("layer").min = VIEWS[state.view].tokens ? -1 : 0;
    this.slider("head", 0, h - 1, state.head, `head ${state.head}`);
    const out = source.knocked.has(`${state.layer}.${state.head}`);
    byId("knock").hidden = !source.can.knock || state.layer < 0;
    byId("knock").setAttribute("aria-pressed", out);
    byId("knock-name").textContent = `${out ? "Put back" : "Knock out"} ${headName(state.layer, state.head)}`;
    if (this.cells.length !== L * (h + 1)) this.build(L, h);
    this.draw();
  }

  slider(id, min, max, value, text) {
    Object.assign(byId(id), { min, max, value });
    byId(id).setAttribute("aria-valuetext", text);
    byId(`${id}-value`).textContent = text.replace(/^(layer|head) /, "");
  }

  // Rows are layers; columns are heads, and at the end CLS, all heads together.
  build(L, h) {
    const names = [...Array(h).keys()].map(String).concat("CLS");
    const top = element("div", { role: "row" }, element("span", { role: "columnheader", class: "corner" }, "layer"));
    names.forEach((name) => top.append(element("span", { role: "columnheader" }, name)));
    top.lastChild.title = "what CLS attends to, mean over heads";
    this.cells = [];
    const rows = [...Array(L).keys()].map((layer) => {
      const row = element("div", { role: "row" }, element("span", { role: "rowheader" }, String(layer)));
      names.forEach((_, head) => row.append(this.cell(layer, head, head === h)));
      return row;
    });
    const [tall, wide] = this.app.source.config.grid;
    for (const [name, value] of [["columns", h + 1], ["rows", L], ["shape", wide / tall]]) {
      byId("look").style.setProperty(`--${name}`, value);
    }
    byId("wall").replaceChildren(top, ...rows);
  }

  cell(layer, head, ofCls) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    const node = element("div", { role: "gridcell", tabindex: "-1" }, canvas);
    node.addEventListener("click", () => this.app.set(this.choice({ layer, head, ofCls })));
    this.cells.push({ layer, head, ofCls, node, canvas });
    return node;
  }

  choice({ layer, head, ofCls }) {
    if (ofCls) return { layer, view: "mean", patch: 0 };
    const { view } = this.app.state;
    return { layer, head, ...(VIEWS[view].head ? {} : { view: "attention" }) };
  }

  // The first time a head is looked at its attention is computed; so that no key press waits for all of them, the wall
  // is drawn for 12 milliseconds at a time.
  draw() {
    const turn = (this.turn = {});
    const slice = (from) => {
      if (turn !== this.turn) return; // something else was chosen meanwhile
      const start = performance.now();
      let n = from;
      while (n < this.cells.length && performance.now() - start < 12) this.thumbnail(this.cells[n++]);
      if (n < this.cells.length) setTimeout(slice, 0, n);
      else this.app.measured();
    };
    slice(0);
  }

  thumbnail({ layer, head, ofCls, node, canvas }) {
    const { state, source } = this.app;
    const values = ofCls ? source.clsRow(layer) : rowOf(source.attention(layer, head), source.config.T, state.patch);
    paintMap(canvas, overPatches(source, values, "attention"));
    const chosen = ofCls
      ? state.view === "mean" && state.patch === 0 && state.layer === layer
      : state.layer === layer && state.head === head && !(state.view === "mean" && state.patch === 0);
    const out = source.knocked.has(`${layer}.${head}`);
    node.setAttribute("aria-selected", chosen);
    node.tabIndex = chosen || (state.layer < 0 && layer === 0 && head === 0) ? 0 : -1;
    node.classList.toggle("out", out);
    const key = this.app.key();
    const name = ofCls ? `layer ${layer}, CLS, mean over heads` : `layer ${layer}, head ${head}${out ? ", knocked out" : ""}`;
    node.setAttribute("aria-label", `${name}: ${format(values[key])} to ${tokenName(key)}`);
  }

  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const { L, h } = this.app.source.config;
    const at = this.cells.find(({ node }) => node === document.activeElement) ?? this.cells[0];
    const layer = clamp(at.layer + step[0], 0, L - 1);
    const head = clamp(at.head + step[1], 0, h);
    const next = this.cells[layer * (h + 1) + head];
    next.node.focus();
    this.app.set(this.choice(next));
  }
}
