// The tape, played backwards on the live page: one op at a time, what comes in as dy and what goes out as each dx.

class Tape {
  constructor(section, app) {
    this.app = app;
    this.at = 0; // the step that was shown last
    this.build(section);
  }

  // The nodes in the order in which backward visits them: the loss first.
  get nodes() {
    return [...this.app.source.tape].reverse();
  }

  // For the state, which keeps the step within them.
  get steps() {
    return this.app.source.tape;
  }

  get step() {
    return clamp(this.app.state.step || 0, 0, this.app.source.tape.length - 1);
  }

  build(section) {
    this.forth = button("← towards the loss", () => this.go(this.step - 1));
    this.next = button("next, backwards →", () => this.go(this.step + 1));
    this.progress = element("p", { class: "progress" });
    this.text = element("div", { class: "step-text", "aria-live": "polite" });
    this.gradients = element("div", { class: "cards" });
    this.list = element("ol", { class: "nodes", role: "listbox", "aria-label": "Nodes of the tape, the loss first" });
    this.list.addEventListener("keydown", (event) => this.keyInList(event));
    section.replaceChildren(
      element("div", { class: "step-bar" }, this.forth, this.next, this.progress),
      element(
        "div",
        { class: "step-body tape-body" },
        element("div", { class: "step-words" }, this.text, this.gradients),
        this.list,
      ),
    );
  }

  go(step) {
    this.app.set({ step: clamp(step, 0, this.app.source.tape.length - 1) });
  }

  key(event) {
    const moves = {
      ArrowRight: this.step + 1,
      ArrowLeft: this.step - 1,
      Home: 0,
      End: this.app.source.tape.length - 1,
    };
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return false;
    this.go(moves[event.key]);
    return true;
  }

  // In the list up and down do the same, and the chosen node keeps the focus.
  keyInList(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.go(this.step + step);
    this.list.querySelector("[aria-selected=true]").focus();
  }

  show() {
    this.at = this.step;
    const nodes = this.nodes;
    const node = nodes[this.step];
    this.progress.textContent = `Node ${this.step + 1} of ${nodes.length}, from the loss back to the pixels`;
    this.forth.disabled = this.step === 0;
    this.next.disabled = this.step === nodes.length - 1;
    this.showText(node);
    this.gradients.replaceChildren(...this.cards(node));
    this.showList(nodes);
  }

  showText(node) {
    const line = (name, text) => [element("dt", {}, name), element("dd", {}, text)];
    this.text.replaceChildren(
      element("h2", {}, ...breakable(nodeName(node))),
      element(
        "dl",
        { class: "op" },
        ...line("forward", node.formula),
        ...line("backward", node.backwardFormula),
        ...line("shapes", `${node.inputs.map((x) => brackets(x.shape)).join(", ")} to ${brackets(node.output.shape)}`),
      ),
    );
  }

  // dy on top, then a dx for each input.
  cards(node) {
    const users = this.nodes.filter(({ inputs }) => inputs.includes(node.output));
    const from = users.length
      ? [...users.map((user) => this.jump(user))]
      : ["nowhere: the loss grows with itself, one for one"];
    const into = element("div", { class: "road" }, "comes from: ", ...from);
    const { grad, shape } = node.output;
    const [, y] = node.formula.match(/^(\w+)(?:\[.*?\])? = /) ?? ["", "y"];
    const dy = this.card(`d${y}`, this.nameOf(node.output), grad, shape, into);
    if (!grad) return [dy];
    return [
      dy,
      ...node.inputs.map((x, i) =>
        this.card(`d${this.letter(node, i)}`, this.nameOf(x), node.gradients[i], x.shape, this.goesTo(x)),
      ),
    ];
  }

  // The name of input i as the backward formula has it, "dx = ..., dW = ..."; of a parameter that it leaves out, its own.
  letter({ inputs, backwardFormula }, i) {
    const letters = Array.from(backwardFormula.matchAll(/(?:^|, )d([A-Za-z]+)/g), (found) => found[1]);
    const [, parameter] = inputs[i].name.match(/\.(weight|bias)$/) ?? [];
    return parameter && !/^[Wb]$/.test(letters[i]) ? parameter : (letters[i] ?? "x");
  }

  producer(x) {
    return this.app.source.tape.find(({ output }) => output === x);
  }

  nameOf(x) {
    return x.name ? briefly(x.name) : `what ${this.producer(x).op} made`;
  }

  goesTo(x) {
    const producer = this.producer(x);
    const roads = this.app.source.tape.filter(({ inputs }) => inputs.includes(x)).length;
    const shared =
      roads > 1 ? ` (${roads} roads leave it: their gradients are added, together ${format(norm(x.grad))} long)` : "";
    const end = x.name === "pixel_values" ? "the pixels" : "learned numbers: here it stays, for the optimizer";
    return element("div", { class: "road" }, "goes to: ", producer ? this.jump(producer) : end, shared);
  }

  card(title, name, numbers, shape, road) {
    const head = element("h3", {}, title, element("small", {}, " ", ...breakable(name), ` ${brackets(shape)}`));
    const none = ["No gradient comes here: the loss does not depend on it."];
    return element("section", { class: "card" }, head, ...(numbers ? this.drawn(numbers, shape, title) : none), road);
  }

  // A gradient as a map, and in numbers. The last axis runs to the right, the others down; of a stage with heads both
  // are of the selected one.
  drawn(numbers, shape, title) {
    const { h } = this.app.source.config;
    const ofHeads = shape.length === 3 && shape[0] === h;
    const { head } = this.app.state;
    const size = numbers.length / h;
    const values = ofHeads ? numbers.subarray(head * size, (head + 1) * size) : numbers;
    const [low, high] = [Math.min(...values), Math.max(...values)].map(brief);
    const text = `${ofHeads ? `head ${head}: ` : ""}${low} to ${high}, length ${brief(norm(values))}`;
    const first = Array.from(values.subarray(0, 3), brief).join(", ") + (values.length > 3 ? ", …" : "");
    return [
      heatMap(values, shape[shape.length - 1] ?? 1, `${title}: ${text}`),
      element("p", {}, text),
      element("p", { class: "by-hand" }, `(${first})`),
    ];
  }

  jump(node) {
    const name = element("span", {}, ...breakable(node.stage ?? nodeName(node)));
    return button(name, () => this.go(this.nodes.indexOf(node)));
  }

  showList(nodes) {
    if (this.list.children.length !== nodes.length) this.list.replaceChildren(...nodes.map((_, i) => this.item(i)));
    nodes.forEach((node, i) => {
      const item = this.list.children[i];
      item.replaceChildren(...breakable(nodeName(node)));
      item.setAttribute("aria-selected", i === this.step);
      item.tabIndex = i === this.step ? 0 : -1;
    });
    const chosen = this.list.children[this.step];
    this.list.scrollTop = chosen.offsetTop - this.list.offsetTop - this.list.clientHeight / 2;
  }

  item(i) {
    const item = element("li", { role: "option" });
    item.addEventListener("click", () => this.go(i));
    return item;
  }
}

function heatMap(values, columns, label) {
  const canvas = element("canvas", { class: "heat", role: "img", "aria-label": label });
  paintMap(canvas, { rows: values.length / columns, columns, values, signed: true });
  canvas.style.aspectRatio = Math.min(Math.max((columns * columns) / values.length, 0.5), 16);
  return canvas;
}

// What a node does: the stage that it makes, or the parameter that it uses, or what it is made of.
function nodeName({ op, stage, inputs }) {
  const parameter = inputs.find(({ name }) => /\.(weight|bias)$/.test(name));
  if (stage) return `${op}: ${stage}`;
  if (parameter) return `${op}: ${briefly(parameter.name.replace(/\.(weight|bias)$/, ""))}`;
  return `${op} of ${briefly(inputs.find(({ name }) => name)?.name ?? "what came before")}`;
}

// A hub name without what all of them have.
const briefly = (name) =>
  name.replace("vit.encoder.", "").replace("attention.attention", "attention").replace("vit.", "");
const brackets = (shape) => (shape.length ? `(${shape.join(", ")}${shape.length === 1 ? "," : ""})` : "()");
