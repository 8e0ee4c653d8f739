// What the walk shows: small tables, numbers beside their colour, and the arithmetic that a pencil can follow.

const FIRST_NUMBERS = 6; // of a row; a photo page keeps fewer
const MOST_KEYS = 5; // that are written out; the rest is one line

function button(content, press) {
  const node = element("button", { type: "button" }, content);
  node.addEventListener("click", press);
  return node;
}

const note = (text) => element("p", { class: "soft" }, text);
const byHand = (...lines) => element("p", { class: "by-hand" }, lines.join("\n"));
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const largest = (numbers) => numbers.reduce((best, x, i) => (x > numbers[best] ? i : best), 0);
const distance = (a, b) => norm(a.map((x, i) => x - b[i]));
const firstPlaces = (n) => Array.from({ length: n }, (_, j) => j);
const factor = (x) => (x < 0 ? `(${format(x)})` : format(x));

// ---- Tables ----

// A table with its head. A cell is a text, or {number, of}: a number on its colour, `of` the largest beside it.
function numberTable(caption, head, rows) {
  const body = rows.map(([name, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...cells.map(cellOf)),
  );
  const table = element(
    "table",
    { class: "step-table" },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...body),
  );
  return element("div", { class: "step-scroll", role: "region", "data-arrows": "", "aria-label": caption }, table);
}

function cellOf(cell) {
  if (typeof cell === "string") return element("td", {}, cell);
  return onColour(brief(cell.number), colour(SCALES.signed, 0.5 + 0.5 * (cell.number / (cell.of || 1))));
}

function onColour(text, rgb) {
  const cell = element("td", { class: "coloured" }, text);
  cell.style.backgroundColor = `rgb(${rgb.map(Math.round)})`;
  cell.style.color = luminance(rgb) > 0.179 ? "black" : "white"; // there both have the contrast 4.6
  return cell;
}

// Of a colour, 0 black to 1 white, as WCAG 2 defines it.
function luminance(rgb) {
  const [r, g, b] = rgb.map((x) => (x <= 10 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function coloured(numbers) {
  const most = Math.max(...numbers.map(Math.abs));
  return numbers.map((number) => ({ number, of: most }));
}

// Rows of [name, {first, norm, count}]: their first numbers, and the length of the whole.
function vectorTable(caption, rows) {
  const shown = Math.min(FIRST_NUMBERS, ...rows.map(([, { first }]) => first.length));
  const all = rows.every(([, { count }]) => count === shown);
  const body = rows.map(([name, { first, norm }]) => [
    name,
    brief(norm),
    ...coloured(Array.from(first).slice(0, shown)),
    ...(all ? [] : ["…"]),
  ]);
  return numberTable(caption, ["", "length", ...firstPlaces(shown).map(String), ...(all ? [] : [""])], body);
}

function valueRows(p, rows, token = p.token) {
  return vectorTable(`Numbers of ${tokenName(token)}`, rows);
}

function gradientRows(caption, rows) {
  const turned = ({ gradient, gradientNorm, count }) => ({ first: gradient, norm: gradientNorm, count });
  return vectorTable(
    caption,
    rows.map(([name, stage]) => [name, turned(stage)]),
  );
}

// ---- Pixels ----

function pixelRows(p) {
  const name = p.config.C === 3 ? "red, top row" : "top row"; // channel after channel, row after row
  return valueRows(p, [[name, p.source.stage("pixel_values", { token: p.patch })]], p.patch);
}

// The selected patch, cut out of the first channel of pixels.
function cutOut(p, { data, W }) {
  const [tall, wide] = p.config.P;
  const place = (n) => (p.row * tall + Math.floor(n / wide)) * W + p.column * wide + (n % wide);
  return { data: Float64Array.from({ length: tall * wide }, (_, n) => data[place(n)]), H: tall, W: wide };
}

// Pixels as numbers on their grey, or on the colours of two signs; where they are too many, those of the patch.
function pixelTable(p, picture, signed = false) {
  if (picture.W > 12) return pixelTable(p, cutOut(p, picture), signed);
  const { data, H, W } = picture;
  const [low, most] = [Math.min(...data), Math.max(...Array.from(data, Math.abs))];
  const range = Math.max(...data) - low || 1;
  const grey = (x) => Array(3).fill((255 * (x - low)) / range);
  const paint = (x) => (signed ? colour(SCALES.signed, 0.5 + 0.5 * (x / (most || 1))) : grey(x));
  const cell = (x) => onColour(signed ? brief(x) : x.toFixed(1), paint(x));
  const rows = Array.from({ length: H }, (_, y) =>
    element("tr", {}, ...Array.from(data.subarray(y * W, (y + 1) * W), cell)),
  );
  if (W > p.config.P[1]) framePatch(p, rows);
  const caption = W > p.config.P[1] ? `All pixels; patch ${p.patch} is framed` : `Pixels of patch ${p.patch}`;
  const table = element(
    "table",
    { class: "step-table pixels" },
    element("caption", {}, caption),
    element("tbody", {}, ...rows),
  );
  return element("div", { class: "step-scroll", role: "region", "data-arrows": "", "aria-label": caption }, table);
}

function framePatch({ row, column, config: { P } }, rows) {
  for (let y = 0; y < P[0]; y++) {
    for (let x = 0; x < P[1]; x++) rows[row * P[0] + y].children[column * P[1] + x].classList.add("framed");
  }
}

function pixelGradients(p) {
  const { shape, data } = p.source.pixelGradient();
  if (p.live) return pixelTable(p, { data, H: shape[0], W: shape[1] }, true);
  return gradientRows(`Gradient of patch ${p.patch}`, [["dx", p.source.stage("pixel_values", { token: p.patch })]]);
}

// ---- Arithmetic, forward ----

// The first number of a token, product by product, where a patch has few pixels.
function firstOfToken(p) {
  const n = sizeOf(p, "C P P");
  if (!p.live || n > 8) return [];
  const [weight, bias] = p.source.model.layer("vit.embeddings.patch_embeddings.projection");
  const x = p.source.stage("pixel_values", { token: p.patch }).first;
  const products = x.map((pixel, i) => `${factor(pixel)} * ${factor(weight.data[i])}`).join(" + ");
  const y = p.source.stage("embeddings.patches", { token: p.patch }).first[0];
  return [byHand(`y[0] = ${products} + ${factor(bias ? bias.data[0] : 0)} = ${format(y)}`)];
}

function moments(x) {
  const mean = x.reduce((sum, number) => sum + number, 0) / x.length;
  return { mean, variance: x.reduce((sum, number) => sum + (number - mean) ** 2, 0) / x.length };
}

// Layer norm before its learned scale and shift.
function normed(p) {
  const x = p.hidden(p.block);
  const { mean, variance } = moments(x);
  const n = Array.from(x, (number) => (number - mean) / Math.sqrt(variance + p.config.eps));
  return { first: n, norm: norm(n), count: n.length };
}

function normedByHand(p) {
  const x = p.hidden(p.block);
  const { mean, variance } = moments(x);
  const root = Math.sqrt(variance + p.config.eps);
  return byHand(
    `mean = ${format(mean)}, var = ${format(variance)}, sqrt(var + eps) = ${format(root)}`,
    `(${format(x[0])} - ${factor(mean)}) / ${format(root)} = ${format((x[0] - mean) / root)}`,
  );
}

// q . k, product by product, and the score that it makes.
function dotProduct(p) {
  const { source, block, head, token, key } = p;
  const [q, k] = [source.query(block, head, token), source.key(block, head, key)];
  const shown = Math.min(8, q.length);
  const products = Array.from(q, (x, j) => x * k[j]);
  const row = (name, numbers) => [name, ...coloured(Array.from(numbers).slice(0, shown))];
  const rows = [row(`q of ${tokenName(token)}`, q), row(`k of ${tokenName(key)}`, k), row("q * k", products)];
  const rest = products.slice(shown).reduce((sum, x) => sum + x, 0);
  const hidden = shown < q.length ? `, ${format(rest)} of it from those not shown` : "";
  return [
    numberTable(`Head ${head} of block ${block}`, ["", ...firstPlaces(shown).map(String)], rows),
    byHand(
      `sum of the ${q.length} products = ${format(dot(q, k))}${hidden}`,
      `s = ${scaled(dot(q, k), p.scores[key], q.length)}`,
    ),
  ];
}

// Softmax, the first in `order` one by one, the rest together.
function softmaxByHand(order, numbers, shares, name, [what, unit]) {
  const most = numbers[largest(numbers)];
  const power = (i) => Math.exp(numbers[i] - most);
  const sum = (places, f) => places.reduce((total, i) => total + f(i), 0);
  const share = (i) => shares[i];
  const [top, rest] = [order.slice(0, MOST_KEYS), order.slice(MOST_KEYS)];
  const rows = top.map((i) => [
    name(i),
    format(numbers[i]),
    format(numbers[i] - most),
    format(power(i)),
    percent(shares[i]),
  ]);
  if (rest.length) rows.push([`${rest.length} more`, "", "", format(sum(rest, power)), percent(sum(rest, share))]);
  rows.push(["sum", "", "", format(sum(order, power)), percent(sum(order, share))]);
  const one = order[Math.min(1, order.length - 1)]; // the first is often 1 / something: the second shows more
  return [
    numberTable(`Softmax over ${order.length} ${what}s`, [what, unit, `${unit} - max`, "exp", "share"], rows),
    byHand(
      `${name(one)}: ${format(power(one))} / ${format(sum(order, power))} = ${format(power(one) / sum(order, power))}`,
    ),
  ];
}

// What each key hands over, and their sum.
function contextByHand(p) {
  const value = (key) => p.inBlock("value", key).first;
  const context = p.inBlock("context").first;
  const places = firstPlaces(Math.min(4, context.length));
  const handed = (keys) => places.map((j) => keys.reduce((sum, key) => sum + p.shares[key] * value(key)[j], 0));
  const [top, rest] = [p.order.slice(0, MOST_KEYS), p.order.slice(MOST_KEYS)];
  const rows = top.map((key) => [`${percent(p.shares[key])} of ${tokenName(key)}`, ...coloured(handed([key]))]);
  rows.push([`${rest.length} more`, ...coloured(handed(rest))]);
  rows.push(["sum", ...coloured(handed(p.order))], ["context", ...coloured(places.map((j) => context[j]))]);
  const [key] = top;
  const product = p.shares[key] * value(key)[0];
  const table = numberTable("Share times value, first numbers", ["", ...places.map(String)], rows);
  const line = byHand(`${tokenName(key)}: ${format(p.shares[key])} * ${factor(value(key)[0])} = ${format(product)}`);
  return [table, line];
}

// The bend between the two tables of the MLP; formulas as in minivit/ops/.
const BENDS = {
  gelu: {
    name: "GELU",
    formula: "a = u * Phi(u), Phi the normal distribution",
    backward: "du = da * (Phi(u) + u * phi(u))",
  },
  relu: { name: "ReLU", formula: "a = max(u, 0)", backward: "du = da where u > 0, else 0" },
};

function bendOf({ activation }) {
  const other = { name: "The bend", formula: `a = ${activation}(u)`, backward: "du = da * slope(u)" };
  return BENDS[activation] ?? other;
}

function bendByHand(p) {
  const [u, a] = [p.inBlock("mlp_pre_activation").first, p.inBlock("mlp_activation").first];
  const places = firstPlaces(Math.min(FIRST_NUMBERS, u.length));
  const row = (name, number) => [name, ...places.map((j) => format(number(j)))];
  const exact = p.activation === "gelu";
  const middle = exact ? [row("Phi(u)", (j) => normal(u[j]))] : [];
  const rows = [row("u", (j) => u[j]), ...middle, row("a", (j) => a[j])];
  const line = exact
    ? [byHand(`a[0] = ${factor(u[0])} * ${format(normal(u[0]))} = ${format(u[0] * normal(u[0]))}`)]
    : [];
  return [numberTable(`Numbers of ${tokenName(p.token)}`, ["", ...places.map(String)], rows), ...line];
}

// How far each block moved the token: its way by its length before, and how much of the direction was left.
function journey(p) {
  const rows = firstPlaces(p.config.L).map((n) => {
    const [before, after] = [p.hidden(n), p.hidden(n + 1)];
    const cosine = dot(before, after) / (norm(before) * norm(after));
    return [`block ${n}`, percent(distance(before, after) / norm(before)), format(cosine), format(norm(after))];
  });
  return numberTable(`The way of ${tokenName(p.token)}`, ["", "moved by", "cosine", "length after"], rows);
}

const byLogit = ({ source }) =>
  Array.from(source.logits().keys()).sort((a, b) => source.logits()[b] - source.logits()[a]);

// All answers in their order, or the ten best of many.
function answersShown(p) {
  const order = byLogit(p).slice(0, 10);
  return p.config.K > 10 ? order : order.sort((a, b) => a - b);
}

function answers(p) {
  const shown = answersShown(p);
  const cells = coloured(shown.map((k) => p.source.logits()[k]));
  return numberTable(
    "The logits",
    ["answer", "logit"],
    shown.map((k, i) => [p.source.answers[k], cells[i]]),
  );
}

// Where the shares are not softmax of what is shown.
function chances(p) {
  const [logits, found] = [p.source.logits(), p.source.probabilities()];
  const rows = answersShown(p).map((k) => [p.answer(k), format(logits[k]), percent(found[k])]);
  const what = p.chances === "part" ? "The sum runs over more answers than are shown" : "Each by itself";
  return numberTable(what, ["answer", "logit", "p"], rows);
}

function lossByHand({ source, live }) {
  const label = source.answers[source.label];
  if (!live) return byHand(`logit of ${label} = ${format(source.logits()[source.label])}`);
  const chance = source.probabilities()[source.label];
  return byHand(`label: ${label}`, `-log(${format(chance)}) = ${format(-Math.log(chance))}, the natural logarithm`);
}

// ---- Arithmetic, backward ----

function firstGradient(p) {
  const { source, live } = p;
  const shown = answersShown(p);
  const y = (k) => (k === source.label ? 1 : 0);
  const cells = coloured(shown.map((k) => (live ? source.probabilities()[k] - y(k) : y(k))));
  const rows = shown.map((k, i) => [
    source.answers[k],
    ...(live ? [format(source.probabilities()[k]), String(y(k))] : []),
    cells[i],
  ]);
  return numberTable("The first gradient", ["answer", ...(live ? ["p", "y"] : []), "dlogit"], rows);
}

// The length of the gradient between the blocks, from after block `from` - 1 down to before block `to`.
function gradientJourney(p, from, to) {
  const other = p.token || p.patch;
  const where = (n) => (n ? `after block ${n - 1}` : "before block 0");
  const rows = firstPlaces(from - to + 1).map((i) => {
    const n = from - i;
    return [where(n), format(p.gradientLength(n, 0)), format(p.gradientLength(n, other))];
  });
  return numberTable("Length of the gradient", ["", "CLS", tokenName(other)], rows);
}

function slopeByHand(p) {
  const { first, gradient } = p.inBlock("mlp_pre_activation");
  if (p.activation !== "gelu" || !gradient.some((x) => x)) return [];
  const [u, da] = [first[0], p.inBlock("mlp_activation").gradient[0]];
  const slope = normal(u) + u * density(u);
  return [
    byHand(
      `u[0] = ${format(u)}: the slope there is ${format(slope)}`,
      `${factor(da)} * ${factor(slope)} = ${format(da * slope)}`,
    ),
  ];
}

// ds = p * (dp - mean), key by key. A photo page keeps the first few keys: there the mean is told from one of them.
function softmaxBackwardByHand(p) {
  const [dp, ds] = [p.inBlock("probabilities").gradient, p.inBlock("scores").gradient];
  const whole = dp.length === p.config.T;
  const keys = whole ? p.order.slice(0, MOST_KEYS) : firstPlaces(dp.length);
  const best = keys.reduce((a, b) => (p.shares[b] > p.shares[a] ? b : a));
  const mean = whole ? dot(dp, p.shares) : dp[best] - ds[best] / p.shares[best];
  const rows = keys.map((key) => [
    tokenName(key),
    format(p.shares[key]),
    format(dp[key]),
    format(dp[key] - mean),
    format(ds[key]),
  ]);
  return [
    numberTable(`Head ${p.head}, ${tokenName(p.token)} asks`, ["key", "p", "dp", "dp - mean", "ds"], rows),
    byHand(
      `mean = sum(dp * p) over all ${p.config.T} keys = ${format(mean)}`,
      `${tokenName(best)}: ${format(p.shares[best])} * ${factor(dp[best] - mean)} = ${format(ds[best])}`,
    ),
  ];
}

// How long the gradient of some learned tables is, beside the table's own length: a live page has them.
function tableGradients(p) {
  if (!p.live) return [note("This page keeps the gradients of the numbers, not those of the tables.")];
  const names = { "patch embedding": "vit.embeddings.patch_embeddings.projection" };
  for (const name of ["query", "key", "value"])
    names[`block ${p.block}, ${name}`] = `vit.encoder.layer.${p.block}.attention.attention.${name}`;
  names.classifier = "classifier";
  const nodes = p.source.tape;
  const rows = Object.entries(names).map(([name, layer]) => {
    const [weight] = p.source.model.layer(layer);
    const node = nodes.find(({ inputs }) => inputs.includes(weight));
    const gradient = node.gradients?.[node.inputs.indexOf(weight)];
    return [name, format(norm(weight.data)), gradient ? format(norm(gradient)) : "0"];
  });
  return [numberTable("Lengths", ["weight of", "weight", "dweight"], rows)];
}
