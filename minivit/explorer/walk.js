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
    this.out = whole.knocked.has(`${this.block}.${this.head}`);
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

  // The selected token's row of attention, its keys in order, and the key that is looked at: the chosen one, or the
  // other patch that the token attends to most.
  attend(chosen) {
    const { T } = this.config;
    this.scores = rowOf(this.source.scores(this.block, this.head), T, this.token);
    this.shares = rowOf(this.source.attention(this.block, this.head), T, this.token);
    this.order = Array.from(this.shares.keys()).sort((a, b) => this.shares[b] - this.shares[a]);
    this.chosen = chosen !== null;
    this.key = chosen ?? otherPatch(this.shares, this.token);
  }

  // Whether a part of what is shown is switched off, by the names of allKnobs in vit.js; "published" is off while it is
  // as it should be. A photo page has the numbers with all heads in.
  isOff(part) {
    if (!this.live) return false;
    const { knobs } = this.source;
    if (part === "head") return this.out;
    if (part === "published") return knobs.published;
    return part === "attention" || part === "mlp" ? !knobs[part][this.block] : !knobs[part];
  }

  // Numbers of a road, or zeros with the reason in their name, where it is switched off.
  along(name, part, numbers) {
    return this.isOff(part) ? [`${name}, times 0`, Array.from(numbers, () => 0)] : [name, numbers];
  }

  // What a photo page computes of numbers that it keeps in few steps.
  rounded(what) {
    const kept = `This page keeps ${what} in 256 steps: what is reckoned here is of the rounded numbers.`;
    return this.live ? [] : [note(kept)];
  }

  // sum(dp * p) of the selected query.
  average() {
    return this.source.averageGradient(this.block, this.head, this.token);
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
    return { caption: `${caption}; CLS, which has no place here: ${brief(row[0])}`, values: row.subarray(1), mark };
  }

  // Where no gradient comes, say why: it looks like a mistake, and is none.
  silent(stage) {
    if (this.inBlock(stage).gradientNorm) return [];
    const last = this.token && this.block === this.config.L - 1;
    const whom = stage === "query" ? `the query of ${tokenName(this.token)}` : tokenName(this.token);
    const why = `Nothing comes back to ${whom} here`;
    const because = ": after the last block only CLS is read. The key 0 shows CLS, the key [ an earlier block.";
    return [note(`${why}${last ? because : "."}`)];
  }
}

class Walk {
  constructor(section, app) {
    this.app = app;
    this.steps = WALK;
    this.at = 0; // the step that was shown last
    this.layer = 0; // and its block
    this.build(section);
    window.addEventListener("hashchange", () => this.enter(0));
  }

  build(section) {
    this.back = button("← back", () => this.go(this.app.state.step - 1));
    this.next = button("next →", () => this.go(this.app.state.step + 1));
    this.progress = element("p", { class: "progress" });
    this.bar = element("progress", { max: WALK.length, "aria-label": "Steps walked" });
    this.text = element("div", { class: "step-text", "aria-live": "polite" });
    this.numbers = element("div", { class: "step-numbers" });
    this.derived = element("p", { class: "derived soft" });
    this.overview = element("details", { class: "overview" }, element("summary", {}, "All steps"), ...this.lists());
    this.letters = element("dl", { class: "letters" });
    const letters = element("details", {}, element("summary", {}, "Letters"), this.letters);
    section.replaceChildren(
      element("div", { class: "step-bar" }, this.back, this.next, this.progress, this.bar, this.overview, letters),
      element(
        "div",
        { class: "step-body" },
        element("div", { class: "step-words" }, this.text, this.numbers, this.derived),
        this.figure(),
      ),
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

  // The walk begins in the first block, and is found again where it was left: in the last one, which the page opens
  // with, no gradient comes back to the patches. A layer that was chosen, in look or by a link, is kept.
  begin({ layer }) {
    const isChosen = layer !== this.app.usual.layer || /[#&]layer=/.test(location.hash);
    const lends = !this.begun && !isChosen && layer !== this.layer;
    this.begun = true;
    if (lends) this.app.lendLayer(this.layer);
    return lends;
  }

  // Comes from elsewhere, a link from nowhere: that opens the same block for everybody.
  enter(layer = this.layer) {
    [this.begun, this.layer] = [false, layer];
  }

  show() {
    if (this.begin(this.app.state)) return;
    const n = (this.at = this.app.state.step);
    this.layer = this.app.state.layer;
    const p = new Place(this.app);
    this.progress.textContent = `Step ${n + 1} of ${WALK.length}, ${n < FORWARD.length ? "forward" : "backward"}`;
    this.bar.value = n + 1;
    this.back.disabled = n === 0;
    this.next.disabled = n === WALK.length - 1;
    this.showText(WALK[n], p);
    this.numbers.replaceChildren(...this.warnings(WALK[n], p), ...WALK[n].numbers(p));
    this.letters.replaceChildren(...lettersOf(p.config).flatMap(([name, text]) => line(name, text)));
    this.letScroll();
    this.showMap(WALK[n].map(p), p);
    this.entries.forEach((entry, i) => {
      entry.textContent = of(WALK[i].title, p);
      entry.setAttribute("aria-current", i === n ? "step" : "false");
    });
  }

  showText(step, p) {
    const shapes = step.shapes.map((shape) => element("li", {}, withSizes(shape, p)));
    this.text.replaceChildren(
      element("h2", {}, of(step.title, p)),
      element("p", { class: "step-sentences" }, step.words(p).join(" ")),
      element("p", { class: "formula" }, of(step.formula, p)),
      shapes.length ? element("ul", { class: "shapes" }, ...shapes) : "",
    );
    const lesson = of(step.lesson, p);
    this.derived.replaceChildren(`Derived in ${this.app.lesson(lesson)} `, this.leadingOut(lesson, p));
  }

  // To the map that belongs to the lesson, of the same token, block and head; to the tape, where it has that. The
  // lessons that the walk itself shows have none.
  leadingOut(lesson, p) {
    const { walk, view, mode } = LESSONS[lesson];
    if (walk) return "";
    if (mode === "tape" && p.live) return button("see the tape", () => this.app.set({ mode, step: 0 }));
    const { patch, layer } = this.app.state;
    return button(`see the map: ${VIEWS[view].title}`, () => this.app.set({ mode: "look", view, patch, layer }));
  }

  // A table that is wider than its place is reached by Tab and scrolled by arrow keys.
  letScroll() {
    for (const box of this.numbers.querySelectorAll(".step-scroll")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  }

  // Where the numbers are not what the page's state lets one expect; a switch is named at the steps that it touches.
  warnings(step, p) {
    const { state, whole } = this.app;
    if (p.live) return (step.parts ?? []).filter((part) => p.isOff(part)).map((part) => note(switchedOff(part, p)));
    const [out] = whole.knocked;
    const told = [];
    if (state.twin) told.push("The walk shows the trained model: of the untrained twin this page keeps no stages.");
    if (out && WALK.indexOf(step) >= FORWARD.indexOf(INTO_BLOCKS)) {
      const [layer, head] = out.split(".");
      const without = "the answers, and what CLS attends to, are without it; all other numbers are with it";
      told.push(`Knocked out is layer ${layer}, head ${head}: ${without}.`);
    }
    return told.map(note);
  }

  // The picture under this step's map: a number for each patch, or one for each pixel.
  showMap({ caption, values, pixels, mark = [] }, p) {
    const [rows, columns] = pixels ? pixels.shape : p.config.grid;
    const numbers = pixels ? pixels.data : values;
    const isEmpty = numbers && numbers.every((x) => x === 0);
    const signed = numbers && numbers.some((x) => x < 0);
    const map = numbers && !isEmpty ? { rows, columns, values: numbers, signed, cls: null } : null;
    this.canvas.style.setProperty("--ratio", (p.config.grid[1] * p.config.P[1]) / (p.config.grid[0] * p.config.P[0]));
    this.drawing = { map, opacity: p.live ? 1 : 0.75, source: p.source, patch: mark[0], key: mark[1] };
    this.drawMap();
    this.caption.textContent = isEmpty ? `${caption}: all 0` : caption;
    this.scale.hidden = !map;
    this.canvas.setAttribute("aria-label", this.caption.textContent);
    if (!map) return;
    const [low, high] = ends(map).map((end, _, both) => (isTiny(end, both) ? "about 0" : format(end)));
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

const isTiny = (end, both) => end !== 0 && Math.abs(end) < Math.max(...both.map(Math.abs)) / 1000;
const line = (name, text) => [element("dt", {}, name), element("dd", {}, text)];

// What a switch does at a step that it touches.
function switchedOff(part, p) {
  const texts = {
    positions: "positions: what is added here is multiplied by 0",
    cls: "CLS: its learned numbers are multiplied by 0 before positions are added",
    residual: "the residual road: what comes along it is multiplied by 0, on the way back, too",
    scale: `the scale 1/\u221Ad: scores are not divided by \u221A${p.config.d}`,
    attention: `attention of layer ${p.block}: what it found is multiplied by 0, and so is the gradient that comes to it`,
    mlp: `MLP of layer ${p.block}: what it found is multiplied by 0, and so is the gradient that comes to it`,
    head: `layer ${p.block}, head ${p.head}: its shares are multiplied by 0, and so is the gradient that comes to them`,
  };
  const alone = "a token takes of its own value only, y[n] = p[n, n] v[n], and gets no other token's";
  return part === "published" ? `Switched on is the einsum "nhn,nhd->nhd": ${alone}.` : `Switched off is ${texts[part]}.`;
}

// The letters of formulas and shapes, with the numbers of this model.
function lettersOf({ C, H, W, P, N, T, D, h, d, F, K, L }) {
  return [
    ["B = 1", "pictures at once"],
    [`C = ${C}`, C === 1 ? "channel: grey" : "channels: red, green, blue"],
    [`H = ${H}, W = ${W}`, "pixels, high and wide"],
    [`P = ${P[0] === P[1] ? P[0] : P.join(" and ")}`, "pixels, the side of a patch"],
    [`N = ${N}`, "patches"],
    [`T = ${T}`, "tokens: CLS is token 0, patch n is token n + 1"],
    [`D = ${D}`, "numbers of a token"],
    [`h = ${h}`, "heads of a block"],
    [`d = ${d}`, "numbers of a head, D / h"],
    [`F = ${F}`, "numbers inside the MLP"],
    [`L = ${L}`, "blocks, also called layers"],
    [`K = ${K}`, "answers"],
    ["q, k, v", "query, key, value; in a shape q and k are the T tokens that ask and are asked"],
    ["A @ B", "matrix product: rows of A times columns of B"],
    ["A^T", "A turned over: its rows become columns"],
    ["dx", "the gradient of x"],
  ];
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
