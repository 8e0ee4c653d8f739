// The numbers: one entry of attention written out from q and k to the probability, and the chosen token at each stage.

const WRITTEN = 4; // numbers of a vector that are written out

class Numbers {
  constructor(app) {
    this.app = app;
    this.table = byId("stages-part").querySelector("table");
  }

  show() {
    this.pair();
    this.stages();
  }

  // q . k, / sqrt(d), exp, divided by the sum over all keys: attention[q, k] as it was computed.
  pair() {
    const { state, source } = this.app;
    const { T, d } = source.config;
    const [i, head, q, k] = [Math.max(state.layer, 0), state.head, state.patch, this.app.key()];
    const [query, keys] = [source.query(i, head, q), source.key(i, head, k)];
    const scores = rowOf(source.scores(i, head), T, q);
    const most = Math.max(...scores);
    const sum = scores.reduce((total, score) => total + Math.exp(score - most), 0);
    const exp = Math.exp(scores[k] - most);
    byId("pair-title").textContent = `${capital(tokenName(q))} asks ${tokenName(k)}: ${headName(i, head)}`;
    const product = dot(query, keys);
    const products = Array.from(query, (x, j) => `${bracket(x)}·${bracket(keys[j])}`);
    const lines = [
      ["q", vector(query)],
      ["k", vector(keys)],
      ["q · k", `${products.slice(0, 2).join(" + ")} + … = ${format(product)}`],
      ["score s", scaled(product, scores[k], d)],
      ["exp(s − max)", `exp(${format(scores[k])} − ${most < 0 ? `(${format(most)})` : format(most)}) = ${format(exp)}`],
      ["sum over keys", `${format(sum)}, of all ${T} tokens`],
      ["attention", `${format(exp)} / ${format(sum)} = ${format(exp / sum)}`],
    ];
    byId("pair").replaceChildren(...lines.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
    byId("products").textContent = `${products.join(" + ")} = ${format(product)}`;
    byId("products-title").textContent = `All ${d} products of q · k`;
    byId("pair-out").textContent = this.without(i, head);
  }

  // What a knock-out does to the numbers here: of a photo only the answers were recorded without a head.
  without(i, head) {
    const { kind, knocked } = this.app.source;
    if (kind === "live") return knocked.has(`${i}.${head}`) ? "This head is knocked out: what it attends to is multiplied by 0." : "";
    const [name] = knocked;
    if (!name) return "";
    return `Answers and the column CLS are without ${headName(...name.split("."))}, one head at a time; all else is with it.`;
  }

  stages() {
    const { state, source } = this.app;
    const layer = Math.max(state.layer, 0);
    const names = source.stages.filter((name) => !name.startsWith("layer.") || name.startsWith(`layer.${layer}.`));
    byId("stages-title").textContent = `${capital(tokenName(state.patch))} at each stage: ${headName(layer, state.head)}`;
    const of = source.gradientOf ?? `${source.kind === "live" ? "the loss for" : "the logit of"} "${source.answers[source.label]}"`;
    const none = names.length ? "Gradients were recorded of the trained model only." : "Recorded of the trained model only.";
    const own = "Shapes are of all tokens.";
    const note = `${own} dx is the gradient of ${of}.${this.silent(layer)}`;
    byId("stages-note").textContent = source.can.gradient ? note : none;
    this.table.hidden = names.length === 0;
    this.table.replaceChildren(this.table.tHead, ...names.flatMap((name) => this.stage(name)));
  }

  // Zeros in a row look like a mistake: in the last block they are none.
  silent(layer) {
    const { state, source } = this.app;
    if (state.patch === 0 || layer < source.config.L - 1) return "";
    return " In the last layer only CLS is read on: a patch gets dx through its key and value alone.";
  }

  stage(name) {
    const { state, source } = this.app;
    const found = source.stage(name, { token: state.patch, head: state.head });
    if (found.first.length === 0) return []; // CLS has no pixels, a patch no part in CLS's first numbers
    const short = name.replace(/^layer\.\d+\./, "");
    const title = element("th", { scope: "rowgroup", rowspan: found.gradient ? 2 : 1 }, ...breakable(short), element("small", {}, shapeOf(found)));
    const value = element("tr", {}, title, element("td", {}, "x"), ...cells(found.norm, found.first));
    const body = element("tbody", {}, value);
    if (found.gradient) {
      const kind = element("td", {}, "dx");
      body.append(element("tr", { class: "gradient" }, kind, ...cells(found.gradientNorm, found.gradient)));
    }
    return [body];
  }
}

function cells(length, numbers) {
  const shown = Array.from(numbers.slice(0, WRITTEN), (x) => element("span", {}, brief(x)));
  const pairs = [shown.slice(0, 2), shown.slice(2)].map((pair) => element("span", {}, ...pair)); // a pair stays in one line
  return [
    element("td", { class: "number" }, brief(length)),
    element("td", { class: "numbers" }, ...pairs),
  ];
}

function shapeOf({ shape }) {
  return `(${shape.join(", ")})`;
}

function scaled(product, score, d) {
  const root = Math.sqrt(d);
  if (Math.abs(product / root - score) <= 1e-3 * Math.max(1, Math.abs(score))) return `${format(product)} / √${d} = ${format(score)}`;
  return `${format(score)}, without the scale 1 / √${d}`;
}

function vector(numbers) {
  const shown = Array.from(numbers).slice(0, WRITTEN).map(brief).join(", ");
  return `(${shown}${numbers.length > WRITTEN ? ", …" : ""})`;
}

function bracket(x) {
  return x < 0 ? `(${brief(x)})` : brief(x);
}
