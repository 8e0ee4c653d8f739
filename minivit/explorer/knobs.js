// What can be switched off on the live page: heads, attention, MLP, positions, CLS, the residual road, the scale.

// What each switch does when it is turned.
const SWITCHED = {
  heads: "what it attends to is multiplied by 0.",
  attention: "its output is not added to the tokens.",
  mlp: "its output is not added to the tokens.",
  positions: "nothing is added for a patch's place, so that shuffled patches would answer the same.",
  cls: "its learned start becomes 0. It still gathers the answer, so that little may change.",
  residual: "what a block makes takes the token's place, and is not added to it.",
  scale: "scores are not divided by √d, so that the largest takes more of each softmax.",
  published: "each token gets its own value times its own share, and no other token's.",
};

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
    this.words = element("p", { class: "soft", id: "switch-words" });
    this.back = button("all back", () => this.allBack());
    section.replaceChildren(
      element("div", { class: "row" }, element("h2", {}, "Switches"), this.back),
      this.effect,
      element("div", { class: "step-scroll" }, this.table),
      element("div", { class: "checks" }, ...this.checkboxes()),
      this.words,
    );
  }

  // What the whole model has, by the name that vit.js knows it by.
  checkboxes() {
    const names = {
      positions: "positions",
      cls: "CLS",
      residual: "residual",
      scale: "scale 1/√d",
      published: "einsum nhn,nhd->nhd",
    };
    this.boxes = {};
    return Object.entries(names).map(([knob, name]) => {
      const box = (this.boxes[knob] = element("input", { type: "checkbox" }));
      box.addEventListener("change", () => this.turn(knob));
      return this.explained(element("label", { class: "check" }, box, ` ${name}`), `${capital(name)}: ${SWITCHED[knob]}`);
    });
  }

  // What a switch does is said under all of them while the pointer or the focus is on it, and stays there.
  explained(node, words) {
    const say = () => (this.words.textContent = words);
    node.title = words;
    node.addEventListener("pointerenter", say);
    node.addEventListener("focusin", say);
    return node;
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
    return this.explained(one, `${capital(name[kind])}: ${SWITCHED[kind]}`);
  }

  isOn(layer, column, kind) {
    const { knobs, config } = this.source;
    return kind === "heads" ? knobs.heads[layer * config.h + column] === 1 : knobs[kind][layer];
  }

  toggle(layer, column, kind) {
    if (kind !== "heads") return this.turn(`${kind}.${layer}`);
    this.app.set({ knocked: toggled(this.app.state.knocked, `${layer}.${column}`) });
  }

  turn(name) {
    this.app.set({ switched: toggled(this.app.state.switched, name) });
  }

  allBack() {
    this.app.set({ knocked: "", switched: "" });
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

  // What the model, or its twin, says now, and what it says with everything in.
  showEffect() {
    const { source } = this.app;
    const answer = (logits) => {
      const best = likeliest(logits);
      return `${source.answers[best]}, ${(100 * softmaxed(logits, logits.length)[best]).toFixed(1)} %`;
    };
    const ofLabel = `loss for "${source.answers[source.label]}"`;
    const now = (loss) => `${answer(source.logits())}; ${ofLabel}: ${loss}`;
    this.back.disabled = !this.changed;
    if (!this.changed) return void (this.effect.textContent = `Everything is in: ${now(format(source.loss))}`);
    const { stages } = forward(source.model, source.pixels, source.label);
    const [loss, before] = [source.loss, stages.loss.data[0]].map((x) => x.toPrecision(6)); // some switches do little
    this.effect.textContent = `Now: ${now(loss)}. With everything in: ${answer(stages.logits.data)}; ${before}`;
  }

  get changed() {
    const [usual, { knobs }] = [allKnobs(this.source.model.config), this.source];
    return Object.keys(usual).some((knob) => String(knobs[knob]) !== String(usual[knob]));
  }
}
