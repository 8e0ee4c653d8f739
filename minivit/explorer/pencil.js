// What the walk shows: small tables, numbers beside their colour, and the arithmetic that a pencil can follow.

const FIRST_NUMBERS = 4; // of a row, as many as a phone has room for; a photo page keeps fewer
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
const bracketed = (x, text) => (x < 0 ? `(${text})` : text);
const factor = (x) => bracketed(x, exact(x));

// Two digits more than format() has: what is made of numbers that are written so comes out as format() writes it.
function exact(x) {
  const text = x !== 0 && Math.abs(x) < 1e-4 ? x.toExponential(5).replace(/\.?0+e/, "e") : String(Number(x.toPrecision(6)));
  return minus(text);
}

// How numbers that are added up are written: all with as many decimals, the largest with `digits` digits; very small or
// large ones in units of a power of ten. {unit, note: its words, round: to what is written, text}.
function ruler(numbers, digits = 4) {
  const most = Math.max(...Array.from(numbers, Math.abs));
  const power = most > 0 ? Math.floor(Math.log10(most)) : 0;
  const shift = power < -2 || power > 4 ? power : 0;
  const decimals = Math.max(0, digits - 1 - power + shift);
  const unit = 10 ** shift;
  const round = (x) => Number((x / unit).toFixed(decimals)) * unit;
  const text = (x) => minus((Number((x / unit).toFixed(decimals)) || 0).toFixed(decimals));
  return { unit, note: shift ? `, in units of 1e${minus(String(shift))}` : "", round, text };
}

const total = (numbers) => numbers.reduce((sum, x) => sum + x, 0);

// ---- Tables ----

// A table with its head. A cell is a text, or {number, of, text}: a number on its colour, `of` the largest beside it.
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
  return onColour(cell.text ?? brief(cell.number), colour(SCALES.signed, 0.5 + 0.5 * (cell.number / (cell.of || 1))));
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
  const counts = new Set(rows.map(([, { count }]) => count));
  const all = counts.size === 1 && counts.has(shown);
  const body = rows.map(([name, { first, norm, count }]) => [
    counts.size > 1 ? `${name}, ${count} numbers` : name,
    brief(norm),
    ...coloured(Array.from(first).slice(0, shown)),
    ...(all ? [] : ["…"]),
  ]);
  return numberTable(caption, ["", "length", ...firstPlaces(shown).map(String), ...(all ? [] : [""])], body);
}

// Rows of [name, numbers], and below them their sum, number by number: of the numbers as they are written.
function sumTable(caption, rows, name) {
  const shown = Math.min(FIRST_NUMBERS, ...rows.map(([, numbers]) => numbers.length));
  const numbers = rows.map(([, row]) => Array.from(row).slice(0, shown));
  const { round, text, note } = ruler(numbers.flat());
  const written = numbers.map((row) => row.map(round));
  const sums = firstPlaces(shown).map((j) => total(written.map((row) => row[j])));
  const body = [...rows.map(([name], i) => [name, written[i]]), [name, sums]].map(([name, row]) => [
    name,
    ...coloured(row).map((cell) => ({ ...cell, text: text(cell.number) })),
    "…",
  ]);
  return numberTable(`${caption}${note}`, ["", ...firstPlaces(shown).map(String), ""], body);
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

// The first pixels of a patch: channel after channel, row after row.
function pixelRows(p) {
  const { first } = p.source.stage("pixel_values", { token: p.patch });
  const name = p.config.C === 3 ? "red, top row" : "top row";
  const head = ["", ...firstPlaces(first.length).map(String), ""];
  return numberTable(`First pixels of token ${p.patch}`, head, [[name, ...coloured(Array.from(first)), "…"]]);
}

// How bright the first pixel of the patch is, and the number that is made of it.
function pixelByHand(p) {
  const { mean, std } = p.source.digits;
  const i = p.row * p.config.P[0] * p.config.W + p.column * p.config.P[1];
  const [bright, x] = [p.source.brightness()[i], p.source.pixels[i]];
  const scaled = `(${exact(bright)} - ${factor(mean[0])}) / ${factor(std[0])} = ${format(x)}`;
  return byHand(`first pixel of token ${p.patch}: ${Math.round(16 * bright)} of 16, that is ${exact(bright)}`, scaled);
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
  const { text, note } = signed ? ruler(data, 3) : { text: (x) => minus(x.toFixed(2)), note: "" };
  const cell = (x) => onColour(text(x), paint(x));
  const rows = Array.from({ length: H }, (_, y) =>
    element("tr", {}, ...Array.from(data.subarray(y * W, (y + 1) * W), cell)),
  );
  if (W > p.config.P[1]) framePatch(p, rows);
  const which = W > p.config.P[1] ? `All pixels; those of token ${p.patch} are framed` : `Pixels of token ${p.patch}`;
  const caption = `${which}${note}`;
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
  return gradientRows(`Gradient of the pixels of token ${p.patch}`, [["dx", p.source.stage("pixel_values", { token: p.patch })]]);
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
  return [byHand(`y[0] = ${products}${bias ? ` + ${factor(bias.data[0])}` : ""} = ${format(y)}`)];
}

function moments(x) {
  const mean = x.reduce((sum, number) => sum + number, 0) / x.length;
  return { mean, variance: x.reduce((sum, number) => sum + (number - mean) ** 2, 0) / x.length };
}

// Layer norm: its row before the learned scale and shift, and how its first number is made. Mean and variance are of
// all D numbers; the photo page has those rounded.
function layerNormRows(p) {
  const { mean, variance } = moments(p.hidden(p.block));
  const root = Math.sqrt(variance + p.config.eps);
  const x = p.before(p.block);
  const first = Array.from(x.first, (number) => (number - mean) / root);
  const n = { first, norm: Math.sqrt(x.count * variance) / root, count: x.count };
  const y = p.inBlock("layernorm_before");
  const lines = [
    `mean = ${format(mean)}, var = ${format(variance)}, sqrt(var + eps) = ${format(root)}`,
    `n[0] = (${exact(x.first[0])} - ${factor(mean)}) / ${exact(root)} = ${format(first[0])}`,
  ];
  if (p.live) {
    const [weight, bias] = p.source.model.layer(`vit.encoder.layer.${p.block}.layernorm_before`);
    const scale = `${factor(first[0])} * ${factor(weight.data[0])} + ${factor(bias.data[0])}`;
    lines.push(`y[0] = ${scale} = ${format(y.first[0])}`);
  }
  const names = [
    ["x", x],
    ["n, normed", n],
    ["y", y],
  ];
  return [
    valueRows(p, names),
    byHand(...lines),
    note(`eps = ${exact(p.config.eps)} keeps the root above 0.`),
    ...p.rounded("all tokens, for mean and var,"),
  ];
}

// q . k, product by product, and the score that it makes.
function dotProduct(p) {
  const { source, block, head, token, key } = p;
  const [q, k] = [source.query(block, head, token), source.key(block, head, key)];
  const shown = Math.min(8, q.length);
  const products = Array.from(q, (x, j) => x * k[j]);
  const rest = total(products.slice(shown));
  const { round, text } = ruler([...products.slice(0, shown), rest], 5);
  const written = [...products.slice(0, shown), ...(shown < q.length ? [rest] : [])].map(round);
  const most = Math.max(...products.slice(0, shown).map(Math.abs));
  const rows = firstPlaces(shown).map((j) => [
    String(j),
    exact(q[j]),
    exact(k[j]),
    { number: written[j], of: most, text: text(written[j]) },
  ]);
  if (shown < q.length) rows.push([`${q.length - shown} more`, "", "", text(rest)]);
  rows.push(["sum", "", "", text(total(written))]);
  const columns = ["", `q, ${tokenName(token)}`, `k, ${tokenName(key)}`, "q * k"];
  const why = `${capital(tokenName(key))} is the other token, CLS aside, that ${tokenName(token)} attends to most.`;
  return [
    numberTable(`Head ${head} of block ${block}`, columns, rows),
    byHand(`s = ${scaled(total(written), p.scores[key], q.length)}`),
    ...(p.chosen ? [] : [note(why)]),
    ...p.rounded("q and k"),
  ];
}

// Softmax, the first in `order` one by one, the rest together.
function softmaxByHand(order, numbers, shares, name, [what, unit]) {
  const most = numbers[largest(numbers)];
  const power = (i) => Math.exp(numbers[i] - most);
  const sum = (places, f) => total(places.map(f));
  const [top, rest] = [order.slice(0, MOST_KEYS), order.slice(MOST_KEYS)];
  const groups = [...top.map((i) => [i]), ...(rest.length ? [rest] : [])];
  const powers = groups.map((places) => Number(sum(places, power).toFixed(4)));
  const parts = percents(groups.map((places) => sum(places, (i) => shares[i])));
  const fixed = (x) => minus((Number(x.toFixed(4)) || 0).toFixed(4));
  const rows = groups.map((places, n) => {
    const [i] = places;
    const less = Number(numbers[i].toFixed(4)) - Number(most.toFixed(4));
    const own = n < top.length ? [name(i), fixed(numbers[i]), fixed(less)] : [`${rest.length} more`, "", ""];
    return [...own, fixed(powers[n]), `${parts[n].toFixed(1)} %`];
  });
  rows.push(["sum", "", "", fixed(total(powers)), "100.0 %"]);
  const one = order[Math.min(1, order.length - 1)]; // the first is often 1 / something: the second shows more
  const all = sum(order, power);
  return [
    numberTable(`Softmax over ${order.length} ${what}s`, [what, unit, `${unit} - max`, "exp", "share"], rows),
    byHand(`${name(one)}: ${exact(power(one))} / ${exact(all)} = ${format(power(one) / all)}`),
  ];
}

// Shares as per cents with one decimal, that sum to 100: the largest takes what rounding left over.
function percents(shares) {
  const tenths = shares.map((share) => Math.round(1000 * share));
  tenths[largest(tenths)] += 1000 - total(tenths);
  return tenths.map((tenth) => tenth / 10);
}

// What each key hands over, and their sum. With the einsum "nhn,nhd->nhd" a token gets only its own value, and without the head
// nobody.
function contextByHand(p) {
  const value = (key) => p.inBlock("value", key).first;
  const own = p.inBlock("context").first;
  const places = firstPlaces(Math.min(4, own.length));
  const counts = (key) => !p.isOff("head") && (!p.isOff("published") || key === p.token);
  const share = (key) => (counts(key) ? p.shares[key] : 0);
  const handed = (keys) => places.map((j) => total(keys.map((key) => share(key) * value(key)[j])));
  const most = p.order.slice(0, MOST_KEYS);
  const top = p.isOff("published") && !most.includes(p.token) ? [...most.slice(0, -1), p.token] : most;
  const rest = p.order.filter((key) => !top.includes(key));
  const rows = top.map((key) => [`${percent(share(key))} of ${tokenName(key)}`, handed([key])]);
  if (rest.length) rows.push([`${rest.length} more`, handed(rest)]);
  const key = top.find(counts) ?? top[0];
  const product = `${exact(share(key))} * ${factor(value(key)[0])} = ${format(share(key) * value(key)[0])}`;
  const exactly = p.live ? [] : [`recorded: y = (${Array.from(own, format).join(", ")}, ...)`];
  return [
    sumTable("Share times value, first numbers", rows, "sum: y"),
    byHand(`${tokenName(key)}: ${product}`, ...exactly),
    ...p.rounded("q and k, and so the shares,"),
  ];
}

// The bend between the two tables of the MLP; formulas as in minivit/ops/.
const BENDS = {
  gelu: {
    words: "GELU lets large numbers pass and holds negative ones back.",
    formula: "a = u * Phi(u), Phi(u) the share of a bell curve left of u",
    backward: "du = da * (Phi(u) + u * phi(u))",
    where: ",  phi(u) the height of the bell curve at u",
  },
  relu: {
    words: "ReLU lets numbers above 0 pass and makes all others 0.",
    formula: "a = max(u, 0)",
    backward: "du = da where u > 0, else 0",
  },
};

function bendOf({ activation }) {
  const words = "Each number by itself goes through a curve, the bend.";
  return BENDS[activation] ?? { words, formula: `a = ${activation}(u)`, backward: "du = da * slope(u)" };
}

function bendByHand(p) {
  const [u, recorded] = [p.inBlock("mlp_pre_activation").first, p.inBlock("mlp_activation").first];
  const places = firstPlaces(Math.min(FIRST_NUMBERS, u.length));
  const row = (name, number) => [name, ...places.map((j) => format(number(j)))];
  const isGelu = p.activation === "gelu";
  const middle = isGelu ? [row("Phi(u)", (j) => normal(u[j]))] : [];
  const rows = [row("u", (j) => u[j]), ...middle, row("a", (j) => (isGelu ? u[j] * normal(u[j]) : recorded[j]))];
  const line = isGelu
    ? [byHand(`a[0] = ${factor(u[0])} * ${exact(normal(u[0]))} = ${format(u[0] * normal(u[0]))}`)]
    : [];
  return [numberTable(`First numbers of ${tokenName(p.token)}`, ["", ...places.map(String)], rows), ...line];
}

// How far each block moved the token: its way by its length before, and how much of the direction was left.
function journey(p) {
  const rows = firstPlaces(p.config.L).map((n) => {
    const [before, after] = [p.hidden(n), p.hidden(n + 1)];
    const cosine = dot(before, after) / (norm(before) * norm(after));
    const moved = percent(distance(before, after) / norm(before));
    return [`block ${n}`, moved, cosine.toFixed(3).replace("-", "\u2212"), format(p.before(n + 1).norm)];
  });
  return [
    numberTable(`The way of ${tokenName(p.token)}`, ["", "moved by", "cosine", "length after"], rows),
    note("The cosine of the token before and after: 1 = same direction, 0 = unrelated, -1 = opposite."),
  ];
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
  return byHand(`label: ${label}`, `-log(${exact(chance)}) = ${format(-Math.log(chance))}, the natural logarithm`);
}

// ---- Arithmetic, backward ----

function firstGradient(p) {
  const { source, live } = p;
  const shown = answersShown(p);
  const y = (k) => (k === source.label ? 1 : 0);
  const chance = (k) => Number(source.probabilities()[k].toFixed(4));
  const cells = coloured(shown.map((k) => (live ? chance(k) - y(k) : y(k))));
  const rows = shown.map((k, i) => [
    source.answers[k],
    ...(live ? [chance(k).toFixed(4), String(y(k))] : []),
    { ...cells[i], text: live ? minus(cells[i].number.toFixed(4)) : String(y(k)) },
  ]);
  return numberTable("The first gradient", ["answer", ...(live ? ["p", "y"] : []), "dlogit"], rows);
}

// The gradient of x in y = x + f(norm(x)): what comes through the norm, and what comes along the residual road.
function roadsMeet(p, { gradient: whole }, { gradient: above }) {
  const [, along] = p.along("", "residual", above);
  const through = Array.from(whole, (g, j) => g - along[j]);
  const rows = [
    ["dx, before the norm", through],
    p.along("+ residual road", "residual", above),
  ];
  return sumTable(`First numbers of the gradients of ${tokenName(p.token)}`, rows, "= sum");
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
      `du[0] = ${factor(da)} * ${factor(slope)} = ${format(da * slope)}`,
    ),
  ];
}

// ds = p * (dp - mean), key by key. A photo page keeps dp of the first few keys, and the mean over all.
function softmaxBackwardByHand(p) {
  const dp = p.inBlock("probabilities").gradient;
  const whole = dp.length === p.config.T;
  const keys = whole ? p.order.slice(0, MOST_KEYS) : firstPlaces(dp.length);
  const mean = whole ? total(Array.from(dp, (g, key) => g * p.shares[key])) : p.average();
  const { unit, round, text, note: units } = ruler([mean, ...keys.map((key) => dp[key])], 5);
  const less = (key) => round(dp[key]) - round(mean);
  const of = (key) => minus(((p.shares[key] * less(key)) / unit).toPrecision(3));
  const rows = keys.map((key) => [
    tokenName(key),
    format(p.shares[key]),
    text(dp[key]),
    text(less(key)),
    of(key),
  ]);
  const best = keys.reduce((a, b) => (p.shares[b] > p.shares[a] ? b : a));
  const product = `${exact(p.shares[best])} * ${bracketed(less(best), text(less(best)))} = ${of(best)}`;
  const missing = `Of dp this page keeps the first ${keys.length} keys, and the mean over all.`;
  return [
    numberTable(`Head ${p.head}, ${tokenName(p.token)} asks${units}`, ["key", "p", "dp", "dp - mean", "ds"], rows),
    byHand(
      `mean = sum(dp * p) over all ${p.config.T} keys = ${text(mean)}`,
      `${tokenName(best)}: ${product}`,
    ),
    ...(whole ? [] : [note(missing)]),
    ...p.rounded("q and k, and so p,"),
  ];
}

// How long the gradient of some learned tables is, beside the table's own length: a live page has them.
function tableGradients(p) {
  if (!p.live) return [note("This page keeps the gradients of the tokens, not of the learned tables.")];
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
