// The live page's drawing: brush and eraser, digits to pick from, the label, and a gradient that is measured.

// The canvas of the model's pixels, and what belongs to it: tools, digits to pick from, the label.
class Drawing {
  constructor(section, app) {
    this.app = app;
    this.tool = "brush";
    this.cursor = { row: 0, column: 0 };
    this.before = []; // drawings to go back to, one for each stroke
    this.picked = 0;
    this.measured = null; // the pixel whose gradient is asked for
    this.build(section);
    this.knobs = new Knobs(byId("knobs"), app);
  }

  get source() {
    return this.app.whole;
  }

  build(section) {
    this.canvas = element("canvas", { class: "drawing-canvas", tabindex: 0, role: "application" });
    const { H, W } = this.source.config;
    this.canvas.style.aspectRatio = `${W} / ${H}`;
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("keydown", (event) => this.keyOnCanvas(event));
    this.canvas.addEventListener("focus", () => this.paint());
    this.canvas.addEventListener("blur", () => this.paint());
    new ResizeObserver(() => this.paint()).observe(this.canvas);
    this.where = element("p", { class: "hint" });
    this.found = element("div", { class: "measured", role: "status" });
    section.replaceChildren(
      element("h2", { class: "aloud" }, "Draw"),
      element("div", { class: "board" }, this.canvas, this.toolbar()),
      this.where,
      element("div", { class: "tools" }, ...this.neighbours(), this.labels()),
      this.examples(),
      this.found,
    );
  }

  toolbar() {
    this.tools = ["brush", "eraser", "measure"].map((tool) => {
      const node = button(tool, () => this.choose(tool));
      node.dataset.tool = tool;
      return node;
    });
    this.undoing = button("undo", () => this.undo());
    return element(
      "div",
      { class: "tools" },
      ...this.tools,
      this.undoing,
      button("clear", () => this.clear()),
    );
  }

  neighbours() {
    const step = (text, name, by) => {
      const node = button(text, () => this.step(by));
      node.setAttribute("aria-label", name);
      return node;
    };
    return [step("←", "previous digit", -1), step("→", "next digit", 1)];
  }

  // Of which class the loss is: until one is chosen, of the likeliest.
  labels() {
    this.label = element("select", {});
    this.label.append(new Option("", -1), ...this.source.answers.map((name, k) => new Option(name, k)));
    this.label.addEventListener("change", () => this.app.set({ label: Number(this.label.value) }));
    return element("label", {}, "this is a ", this.label);
  }

  // The first digit of each class, as buttons.
  examples() {
    const { digits, answers } = this.source;
    this.strip = answers.flatMap((name, k) => {
      const i = digits.labels.indexOf(k);
      return i < 0 ? [] : [this.example(i, name)];
    });
    return element(
      "div",
      { class: "examples", role: "group", "aria-label": "Test digits, one of each" },
      ...this.strip,
    );
  }

  example(i, name) {
    const { H, W } = this.source.config;
    const canvas = element("canvas", { "aria-hidden": "true" });
    paintPixels(canvas, { data: this.source.digits.pictures.subarray(i * H * W, (i + 1) * H * W), H, W });
    const one = button(canvas, () => this.pick(i));
    one.setAttribute("aria-label", `a ${name}`);
    return one;
  }

  // ---- What changes the drawing ----

  pick(i) {
    const { count, labels } = this.source.digits;
    this.remember();
    this.picked = (i + count) % count;
    this.app.set({ drawing: `digit${this.picked}`, label: labels[this.picked] });
  }

  step(by) {
    this.pick(this.picked + by);
  }

  // Nobody has said yet what is drawn next.
  clear() {
    this.remember();
    const { H, W } = this.source.config;
    this.app.set({ drawing: "0".repeat(H * W), label: -1 });
  }

  undo() {
    const last = this.before.pop();
    if (last) this.app.set(last);
  }

  remember() {
    const { drawing, label } = this.app.state;
    this.before = [...this.before.slice(-49), { drawing, label }];
  }

  choose(tool) {
    this.tool = tool;
    this.measured = tool === "measure" ? this.cursor : null;
    this.app.redraw();
  }

  // brightness: (H, W), 0 to 1; kept as it is while a stroke adds to it.
  put(brightness) {
    this.inks = brightness;
    this.app.set({ drawing: asGreys(brightness) });
  }

  // A soft brush: full in the middle, fading over `radius` pixels. It adds, so that crossing strokes are brighter.
  stamp(row, column, strength) {
    const { H, W } = this.source.config;
    const radius = 0.17 * Math.sqrt(H * W); // on 8 x 8 pixels 1.4, the width of the digits' own strokes
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < W; x++) {
        const near = 1 - Math.hypot(y + 0.5 - row, x + 0.5 - column) / radius;
        if (near > 0) this.inks[y * W + x] = shade(this.inks[y * W + x] + strength * near);
      }
    }
  }

  // ---- Pointer: mouse, pen and finger ----

  // Where the pointer is, in pixels of the model, (0, 0) the upper left corner.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const { H, W } = this.source.config;
    return [((event.clientY - box.top) / box.height) * H, ((event.clientX - box.left) / box.width) * W];
  }

  press(event) {
    if (event.button === 2) return; // its menu
    const [row, column] = this.at(event);
    this.moveCursor(Math.floor(row), Math.floor(column));
    if (this.tool === "measure") return this.app.redraw();
    this.canvas.setPointerCapture(event.pointerId);
    this.remember();
    this.inks = this.source.brightness();
    this.pen = [row, column];
    this.stamp(row, column, this.erases(event) ? -1 : 0.8);
    this.put(this.inks);
  }

  move(event) {
    if (!this.pen || !this.canvas.hasPointerCapture(event.pointerId)) return;
    const [row, column] = this.at(event);
    const [from, along] = [this.pen, Math.hypot(row - this.pen[0], column - this.pen[1])];
    const stamps = Math.floor(along / 0.25); // so that a slow stroke is no brighter than a quick one
    if (stamps === 0) return;
    for (let i = 1; i <= stamps; i++) {
      const share = i / stamps;
      const strength = this.erases(event) ? -0.5 : 0.22;
      this.stamp(from[0] + share * (row - from[0]), from[1] + share * (column - from[1]), strength);
    }
    this.pen = [row, column];
    this.put(this.inks);
  }

  // All keys of the drawing are the canvas's own.
  key() {
    return false;
  }

  // The eraser, the other end of a pen, or Shift.
  erases(event) {
    return this.tool === "eraser" || event.shiftKey || (event.buttons & 32) !== 0;
  }

  // ---- Keys: a cursor that walks over the pixels ----

  keyOnCanvas(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { row, column } = this.cursor;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) this.walk(row + moves[event.key][0], column + moves[event.key][1]);
    else if (event.key === " " || event.key === "Enter") this.paintPixel(event);
    else if (event.key === "Backspace") this.undo();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  walk(row, column) {
    this.moveCursor(row, column);
    if (this.tool === "measure") this.app.redraw();
    else this.show();
  }

  moveCursor(row, column) {
    const { H, W } = this.source.config;
    this.cursor = { row: clamp(row, 0, H - 1), column: clamp(column, 0, W - 1) };
    if (this.tool === "measure") this.measured = this.cursor;
  }

  // By keyboard a pixel is painted by itself, a quarter at a time: any digit can be drawn exactly.
  paintPixel(event) {
    if (this.tool === "measure") return;
    this.remember();
    this.inks = this.source.brightness();
    const i = this.cursor.row * this.source.config.W + this.cursor.column;
    this.inks[i] = shade(this.inks[i] + (this.erases(event) ? -0.25 : 0.25));
    this.put(this.inks);
  }

  // ---- What is seen ----

  show() {
    this.tools.forEach((one) => one.setAttribute("aria-pressed", one.dataset.tool === this.tool));
    this.undoing.disabled = this.before.length === 0;
    this.showLabel();
    this.paint();
    this.say();
    this.showMeasured();
    this.knobs.show();
  }

  showLabel() {
    const { drawing, label } = this.app.state;
    this.label.options[0].text = `${this.source.answers[this.source.label]}?`;
    this.label.options[0].hidden = label >= 0; // what the model says is shown, and is no choice
    this.label.value = label;
    this.label.title = label < 0 ? "the model's own answer, until you choose" : "";
    if (drawing.startsWith("digit")) this.picked = Number(drawing.slice(5));
  }

  say() {
    const { row, column } = this.cursor;
    const { W, H } = this.source.config;
    const grey = Math.round(16 * this.source.brightness()[row * W + column]);
    this.where.textContent = `row ${row}, column ${column}: ${grey} of 16`;
    const keys = "arrow keys move, space paints, shift and space erases, backspace takes back";
    this.canvas.setAttribute("aria-label", `Drawing, ${H} x ${W} pixels; ${keys}. ${this.where.textContent}`);
  }

  paint() {
    const { H, W } = this.source.config;
    const context = sharp(this.canvas);
    const { width, height } = this.canvas;
    this.small ??= document.createElement("canvas");
    paintMap(this.small, { rows: H, columns: W, colours: this.greys(), values: null });
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, 0, width, height);
    if (this.tool !== "measure" && !this.canvas.matches(":focus-visible")) return;
    const [x, y, w, h] = [(this.cursor.column * width) / W, (this.cursor.row * height) / H, width / W, height / H];
    mark(context, [
      [x, y, x + w, y],
      [x + w, y, x + w, y + h],
      [x + w, y + h, x, y + h],
      [x, y + h, x, y],
    ]);
  }

  // Black to white, whatever the least and the largest number are: an empty drawing is black.
  greys() {
    return Uint8ClampedArray.from(Array.from(this.source.brightness()).flatMap((b) => Array(3).fill(255 * b)));
  }

  // The gradient of the loss at a pixel, as backward says it and as a nudge up and down finds it.
  showMeasured() {
    this.found.hidden = this.tool !== "measure";
    if (this.found.hidden || !this.measured) return;
    const { row, column } = this.measured;
    const { numeric, analytic } = this.source.finiteDifference(row * this.source.config.W + column);
    const apart = Math.abs(numeric - analytic) / Math.max(Math.abs(numeric), Math.abs(analytic), 1e-12);
    const line = (name, x, digits) => [element("dt", {}, name), element("dd", {}, signed(x.toExponential(digits)))];
    const [black, white] = [0, 1].map((b) => format(this.source.fromBrightness([b])[0]));
    const direction = analytic < 0 ? "falls" : "grows";
    this.found.replaceChildren(
      element("h3", {}, `Gradient at row ${row}, column ${column}`),
      element(
        "dl",
        {},
        ...line("backward, dx", analytic, 6),
        ...line("(loss(x + e) - loss(x - e)) / 2e", numeric, 6),
        ...line("relative difference", apart, 1),
      ),
      element(
        "p",
        {},
        `Both say: raise x, this pixel on a scale from ${black} to ${white}, by a tiny e, ` +
          `and the loss ${direction} by ${format(Math.abs(analytic))} e.`,
      ),
    );
  }
}

const shade = (brightness) => Math.min(Math.max(brightness, 0), 1);
const signed = (text) => text.replaceAll("-", "−");
