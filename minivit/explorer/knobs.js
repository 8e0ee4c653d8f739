// What can be switched off on the live page: heads, attention, MLP, positions, CLS, the residual road, the scale.

// Switches for parts of the model: each head, attention and MLP of each layer, and what the whole model has.
class Knobs {
  constructor(section, app) {
    this.app = app;
    this.build(section);
  }

  get source() {
    return this.app.whole;
  }

  build(section) {
    const { L, h } = this.source.config;
    this.cells = [];
    const columns = [...Array.from({ length: h }, (_, head) => `${head}`), "att", "mlp"];
    const header = element(
      "tr",
      {},
      element("th", { scope: "col" }, element("span", { class: "aloud" }, "layer")),
      ...columns.map((name) => element("th", { scope: "col" }, name)),
    );
    const rows = Array.from({ length: L }, (_, layer) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, String(layer)),
        ...columns.map((_, i) => element("td", {}, this.cell(layer, i))),
      ),
    );
    this.table = element(
      "table",
      { class: "switches" },
      element("caption", { class: "aloud" }, "Heads, attention and MLP of each layer"),
      element("thead", {}, header),
      element("tbody", {}, ...rows),
    );
    this.table.addEventListener("keydown", (event) => this.key(event));
    this.effect = element("p", { class: "effect", role: "status" });
    this.back = button("all back", () => this.allBack());
    section.replaceChildren(
      element("div", { class: "row" }, element("h2", {}, "Switches"), this.back),
      this.effect,
      element("div", { class: "step-scroll" }, this.table),
      element("div", { class: "checks" }, ...this.checkboxes()),
    );
  }

  // What the whole model has, by the name that vit.js knows it by.
  checkboxes() {
    const names = {
      positions: "positions",
      cls: "CLS",
      residual: "residual",
      scale: "scale 1/√d",
      published: "published einsum",
    };
    this.boxes = {};
    return Object.entries(names).map(([knob, name]) => {
      const box = (this.boxes[knob] = element("input", { type: "checkbox" }));
      box.addEventListener("change", () => this.turn({ [knob]: box.checked }));
      return element("label", { class: "check" }, box, ` ${name}`);
    });
  }

  // One switch of the table; columns from h on are attention and MLP.
  cell(layer, column) {
    const { h } = this.source.config;
    const kind = column < h ? "heads" : column === h ? "attention" : "mlp";
    const name = {
      heads: `layer ${layer}, head ${column}`,
      attention: `layer ${layer}, attention`,
      mlp: `layer ${layer}, MLP`,
    };
    const one = button("", () => this.toggle(layer, column, kind));
    one.setAttribute("aria-label", name[kind]);
    one.tabIndex = this.cells.length ? -1 : 0;
    this.cells.push({ node: one, on: () => this.isOn(layer, column, kind) });
    return one;
  }

  isOn(layer, column, kind) {
    const { knobs, config } = this.source;
    return kind === "heads" ? knobs.heads[layer * config.h + column] === 1 : knobs[kind][layer];
  }

  toggle(layer, column, kind) {
    if (kind === "heads") {
      this.source.knock(layer, column);
      return this.app.redraw();
    }
    const all = this.source.knobs[kind].slice();
    all[layer] = !all[layer];
    this.turn({ [kind]: all });
  }

  turn(changes) {
    this.source.setKnobs(changes);
    this.app.redraw();
  }

  allBack() {
    this.turn(allKnobs(this.source.model.config));
  }

  // One switch of the table is reached by Tab, the others by arrow keys.
  key(event) {
    const wide = this.source.config.h + 2;
    const step = { ArrowUp: -wide, ArrowDown: wide, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.cells.findIndex(({ node }) => node === document.activeElement);
    const to = this.cells[from + step];
    if (!to) return;
    this.cells[from].node.tabIndex = -1;
    to.node.tabIndex = 0;
    to.node.focus();
  }

  show() {
    for (const { node, on } of this.cells) {
      node.setAttribute("aria-pressed", on());
      node.textContent = on() ? "●" : "○";
    }
    for (const [knob, box] of Object.entries(this.boxes)) box.checked = this.source.knobs[knob];
    this.showEffect();
  }

  // What the model says now, and what it says with everything in.
  showEffect() {
    const { source } = this;
    const answer = (logits) => {
      const best = logits.indexOf(Math.max(...logits));
      return `${source.answers[best]}, ${(100 * softmaxed(logits, logits.length)[best]).toFixed(1)} %`;
    };
    const now = `${answer(source.logits())}; loss ${format(source.loss)}`;
    this.back.disabled = !this.changed;
    if (!this.changed) return void (this.effect.textContent = `Everything is in: ${now}`);
    const { stages } = forward(source.model, source.pixels, source.label);
    const before = `${answer(stages.logits.data)}; loss ${format(stages.loss.data[0])}`;
    this.effect.textContent = `Now: ${now}. With everything in: ${before}`;
  }

  get changed() {
    const [usual, { knobs }] = [allKnobs(this.source.model.config), this.source];
    return Object.keys(usual).some((knob) => String(knobs[knob]) !== String(usual[knob]));
  }
}
