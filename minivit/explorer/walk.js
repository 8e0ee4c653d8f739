// Walk mode: one step of WALK (see steps.js) at a time, for the patch, layer and head that are selected.

// What a step looks at: the numbers of the source, the block that is opened, the head and the token.
class Place {
  constructor(app) {
    const { state, whole } = app;
    this.source = app.source.can.gradient ? app.source : whole; // a photo's twin has no stages
    this.config = this.source.config;
    [this.activation, this.qkvBias] = [app.data.config.hidden_act, app.data.config.qkv_bias];
    this.live = whole.kind === "live";
    this.compares = app.data.answers_are === "photos";
    this.goal = this.live ? "the loss" : "that logit";
    [this.block, this.head, this.token] = [Math.max(state.layer, 0), state.head, state.patch];
    this.patch = this.token || app.usual.patch; // CLS has no pixels: there the middle patch stands in for it
    [this.row, this.column] = [
      Math.floor((this.patch - 1) / this.config.grid[1]),
      (this.patch - 1) % this.config.grid[1],
    ];
    this.attend(state.key);
    this.answer = (k) => this.source.answers[k];
  }

  // How the logits became probabilities: softmax, each by itself, or softmax with answers that are not shown here.
  get chances() {
    const [logits, found] = [this.source.logits(), this.source.probabilities()];
    const isNear = (expected) => expected.every((p, k) => Math.abs(p - found[k]) < 1e-4);
    if (isNear(softmaxed(logits, logits.length))) return "softmax";
    return isNear(Array.from(logits, sigmoid)) ? "sigmoid" : "part";
  }

  // The selected token's row of attention, its keys in order, and the key that is looked at: never the token itself,
  // unless it was chosen.
  attend(chosen) {
    const { T } = this.config;
    this.scores = rowOf(this.source.scores(this.block, this.head), T, this.token);
    this.shares = rowOf(this.source.attention(this.block, this.head), T, this.token);
    this.order = Array.from(this.shares.keys()).sort((a, b) => this.shares[b] - this.shares[a]);
    this.key = chosen ?? this.order.find((key) => key !== this.token);
  }

  // A stage of the opened block: its numbers for a token, the selected one unless said otherwise.
  inBlock(name, token = this.token) {
    return this.source.stage(`layer.${this.block}.${name}`, { token, head: this.head });
  }

  // The tokens before block n, as a stage; n = L are those after the last.
  before(n, token = this.token) {
    return this.source.stage(n ? `layer.${n - 1}.output` : "embeddings.output", { token, head: this.head });
  }

  // The same with all their D numbers, which a photo page has, too.
  hidden(n, token = this.token) {
    const { D } = this.config;
    return this.source.tokens(n).subarray(token * D, (token + 1) * D);
  }

  gradientLength(n, token) {
    return this.before(n, token).gradientNorm;
  }

  // Maps: of a number for each patch, of the length of a stage's gradient, of a row of T numbers.
  over(caption, number) {
    const values = Float64Array.from({ length: this.config.N }, (_, n) => number(n + 1));
    return { caption, values, mark: [this.token] };
  }

  gradients(caption, stage) {
    return this.over(caption, (token) => this.inBlock(stage, token).gradientNorm);
  }

  fromToken(caption, row, mark = [this.token, this.key]) {
    return { caption, values: row.subarray(1), mark };
  }

  // Where no gradient comes, say why: it looks like a mistake, and is none.
  silent(stage) {
    if (this.inBlock(stage).gradientNorm) return [];
    const last = this.token && this.block === this.config.L - 1;
    const why = `Nothing comes back to ${tokenName(this.token)} here`;
    return [
      note(
        last
          ? `${why}: behind the last block only CLS is read. The key 0 shows CLS, the key [ an earlier block.`
          : `${why}.`,
      ),
    ];
  }
}

class Walk {
  constructor(section, app) {
    this.app = app;
    this.steps = WALK;
    this.at = 0; // the step that was shown last
    this.build(section);
  }

  build(section) {
    this.back = button("← back", () => this.go(this.app.state.step - 1));
    this.next = button("next →", () => this.go(this.app.state.step + 1));
    this.progress = element("p", { class: "progress" });
    this.bar = element("progress", { max: WALK.length, "aria-label": "Steps walked" });
    this.text = element("div", { class: "step-text", "aria-live": "polite" });
    this.numbers = element("div", { class: "step-numbers" });
    this.overview = element("details", { class: "overview" }, element("summary", {}, "All steps"), ...this.lists());
    section.replaceChildren(
      element("div", { class: "step-bar" }, this.back, this.next, this.progress, this.bar),
      element(
        "div",
        { class: "step-body" },
        element("div", { class: "step-words" }, this.text, this.numbers),
        this.figure(),
      ),
      this.overview,
    );
  }

  figure() {
    this.canvas = element("canvas", { class: "step-picture", role: "img" });
    this.grid = new PatchGrid(this.canvas, (patch) => this.app.set({ patch }));
    new ResizeObserver(() => this.drawMap()).observe(this.canvas);
    this.caption = element("figcaption", {});
    this.legend = element("canvas", { class: "step-legend", "aria-hidden": "true" });
    this.low = element("span", {});
    this.high = element("span", {});
    this.scale = element("div", { class: "step-scale" }, this.low, this.legend, this.high);
    return element("figure", { class: "step-figure" }, this.canvas, this.scale, this.caption);
  }

  // All steps to jump to, the way there and the way back.
  lists() {
    this.entries = WALK.map((_, n) => button("", () => this.go(n)));
    const list = (title, steps, start) => [
      element("h3", {}, title),
      element("ol", { start: start + 1 }, ...steps.map((_, i) => element("li", {}, this.entries[start + i]))),
    ];
    return [
      ...list("Forward: from the pixels to the answer", FORWARD, 0),
      ...list("Backward: from the answer to the pixels", BACKWARD, FORWARD.length),
    ];
  }

  go(step) {
    this.app.set({ step });
  }

  key(event) {
    const { step } = this.app.state;
    const moves = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: WALK.length - 1 };
    if (!(event.key in moves) || event.shiftKey || event.target.closest(".step-scroll[tabindex]")) return false;
    this.go(moves[event.key]);
    return true;
  }

  // Who comes here for the first time walks through the first block: in the last one, which the page opens with, no
  // gradient comes back to the patches. Before the blocks the choice shows nowhere, so that links stay what they were.
  begin({ step, layer }) {
    const early = !this.begun && step < FORWARD.indexOf(INTO_BLOCKS) && layer === this.app.usual.layer && layer > 0;
    this.begun = true;
    if (early) this.app.set({ layer: 0 });
    return early;
  }

  show() {
    if (this.begin(this.app.state)) return;
    const n = (this.at = this.app.state.step);
    const p = new Place(this.app);
    this.progress.textContent = `Step ${n + 1} of ${WALK.length}, ${n < FORWARD.length ? "forward" : "backward"}`;
    this.bar.value = n + 1;
    this.back.disabled = n === 0;
    this.next.disabled = n === WALK.length - 1;
    this.showText(WALK[n], p);
    this.numbers.replaceChildren(...this.warnings(), ...WALK[n].numbers(p));
    this.letScroll();
    this.showMap(WALK[n].map(p), p);
    this.entries.forEach((entry, i) => {
      entry.textContent = of(WALK[i].title, p);
      entry.setAttribute("aria-current", i === n ? "step" : "false");
    });
  }

  showText(step, p) {
    const lesson = of(step.lesson, p);
    const link = element("a", { href: `#lesson=${lesson}` }, this.app.lesson(lesson));
    const shapes = step.shapes.map((shape) => element("li", {}, withSizes(shape, p)));
    this.text.replaceChildren(
      element("h2", {}, of(step.title, p)),
      element("p", { class: "step-sentences" }, step.words(p).join(" ")),
      element("p", { class: "formula" }, of(step.formula, p)),
      shapes.length ? element("ul", { class: "shapes" }, ...shapes) : "",
      element("p", { class: "soft" }, "Derived in ", link),
    );
  }

  // A table that is wider than its place is reached by Tab and scrolled by arrow keys.
  letScroll() {
    for (const box of this.numbers.querySelectorAll(".step-scroll")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  }

  // Where the numbers are not what the page's state lets one expect.
  warnings() {
    const { state, whole, drawing } = this.app;
    const [live, known] = [drawing !== undefined, "the answers and what CLS attends to"];
    const found = {
      "Something is switched off: not all sums come out as written.": live && drawing.knobs.changed,
      "Of the twin the page keeps no stages: these are the trained model's.": !live && state.twin,
      [`A head is knocked out: without it the page knows ${known}, the rest is with it.`]: !live && whole.knocked.size,
    };
    return Object.keys(found)
      .filter((text) => found[text])
      .map((text) => note(text));
  }

  // The picture under this step's map: a number for each patch, or one for each pixel.
  showMap({ caption, values, pixels, mark = [] }, p) {
    const [rows, columns] = pixels ? pixels.shape : p.config.grid;
    const numbers = pixels ? pixels.data : values;
    const map = numbers ? { rows, columns, values: numbers, signed: numbers.some((x) => x < 0), cls: null } : null;
    this.canvas.style.setProperty("--ratio", (p.config.grid[1] * p.config.P[1]) / (p.config.grid[0] * p.config.P[0]));
    this.drawing = { map, opacity: 0.75, source: p.source, patch: mark[0], key: mark[1] };
    this.drawMap();
    this.caption.textContent = caption;
    this.scale.hidden = !map;
    this.canvas.setAttribute("aria-label", caption);
    if (!map) return;
    const [low, high] = ends(map).map(format);
    [this.low.textContent, this.high.textContent] = [low, high];
    this.canvas.setAttribute("aria-label", `${caption}; ${low} to ${high}`);
    paintLegend(this.legend, map, null);
  }

  drawMap() {
    if (!this.drawing || this.app.state.mode !== "walk") return;
    const picture = this.app.panels.picture.picture();
    if (picture === null) requestAnimationFrame(() => this.drawMap()); // the photo is still being decoded
    this.grid.draw({ ...this.drawing, picture });
  }
}

// What depends on the place is a function of it.
const of = (given, p) => (typeof given === "function" ? given(p) : given);

// "q, k (B, h, T, d)" -> "q, k (B, h, T, d) = (1, 8, 17, 8)".
function withSizes(shape, p) {
  const letters = shape.match(/\(([^)]*)\)$/)[1].split(", ");
  return `${shape} = (${letters.map((product) => sizeOf(p, product)).join(", ")}${letters.length === 1 ? "," : ""})`;
}

// "C P P" -> the product of the three sizes.
function sizeOf({ config }, product) {
  const { P, T } = config;
  const sides = [...P]; // a patch need not be square: the first P is its height, the second its width
  const sizes = { ...config, B: 1, q: T, k: T };
  return product.split(" ").reduce((size, letter) => size * (letter === "P" ? sides.shift() : sizes[letter]), 1);
}
