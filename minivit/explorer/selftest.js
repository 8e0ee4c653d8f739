// The page opened with #selftest: every gradient of vit.js beside central finite differences, and the worst error.
//
// At each tensor on the way from the pixels to the loss, and at each parameter, all numbers are moved a little in a
// random direction u, and what comes after is computed again: (loss(x + eps u) - loss(x - eps u)) / (2 eps) must be the
// sum of gradient * u. So each op's way back is held twice, by its output and by its inputs.

const EPS = 1e-5;

// The same numbers each time, evenly from -1 to 1.
function randomNumbers(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  };
}

// A model that is small and has no two sizes alike, so that a swapped axis shows. changes: to its config.
function smallModel(random, changes) {
  const config = {
    hidden_size: 12,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    intermediate_size: 7,
    num_channels: 2,
    image_size: [4, 9],
    patch_size: [2, 3],
    layer_norm_eps: 1e-6,
    hidden_act: "gelu",
    ...changes,
  };
  const drawn = (shape) => ({ shape, data: Float64Array.from({ length: size(shape) }, random) });
  const shapes = Object.entries(parameterShapes(config, 5));
  return new Model(config, Object.fromEntries(shapes.map(([name, shape]) => [name, drawn(shape)])));
}

// {hub name: shape} of a model with K classes.
function parameterShapes({ hidden_size: D, intermediate_size: F, num_hidden_layers: L, ...config }, K) {
  const { num_channels: C, image_size: [H, W], patch_size: [P, Q] } = config;
  const shapes = { "vit.embeddings.cls_token": [1, 1, D] };
  shapes["vit.embeddings.position_embeddings"] = [1, (H / P) * (W / Q) + 1, D];
  const layer = (name, ...shape) => Object.assign(shapes, { [`${name}.weight`]: shape, [`${name}.bias`]: [shape[0]] });
  layer("vit.embeddings.patch_embeddings.projection", D, C, P, Q);
  for (let i = 0; i < L; i++) {
    const inLayer = (name, ...shape) => layer(`vit.encoder.layer.${i}.${name}`, ...shape);
    for (const name of ["query", "key", "value"]) inLayer(`attention.attention.${name}`, D, D);
    inLayer("attention.output.dense", D, D);
    inLayer("intermediate.dense", F, D);
    inLayer("output.dense", D, F);
    inLayer("layernorm_before", D);
    inLayer("layernorm_after", D);
  }
  layer("vit.layernorm", D);
  layer("classifier", K, D);
  return shapes;
}

// [{where, numeric, analytic, error}] of every tensor that stands on the tape of one forward pass.
function gradientErrors(where, model, pixels, label, knobs, random) {
  const { tape } = forward(model, pixels, label, { ...allKnobs(model.config), ...knobs });
  backward(tape);
  const tensors = new Set(tape.flatMap(({ inputs, output }) => [...inputs, output]));
  return Array.from(tensors, (x) => {
    const u = x.data.map(random);
    const analytic = x.grad ? u.reduce((sum, step, i) => sum + step * x.grad[i], 0) : 0;
    const [above, below] = lossesBeside(tape, x, u);
    const numeric = (above - below) / (2 * EPS);
    const size = x.grad ? Math.hypot(...x.grad) : 0;
    const error = Math.abs(numeric - analytic) / (size + 1e-4); // 1e-4: some gradients are 0, a key's bias has one
    const made = tape.find(({ output }) => output === x);
    return { where: `${where}: ${x.name || made.op}`, numeric, analytic, error };
  });
}

// The losses with x + eps u and with x - eps u in the place of x; then all is as it was.
function lossesBeside(tape, x, u) {
  const before = x.data.slice();
  const after = tape.slice(1 + tape.findIndex(({ output }) => output === x)); // of a leaf, all
  const lossAt = (eps) => {
    for (let i = 0; i < u.length; i++) x.data[i] = before[i] + eps * u[i];
    after.forEach((node) => node.again());
    return tape[tape.length - 1].output.data[0];
  };
  const losses = [lossAt(EPS), lossAt(-EPS)];
  lossAt(0);
  return losses;
}

// {worst, rows}: of the live page's own model as it is now; and of small ones, with each activation and each knob.
function selfTest(source) {
  const random = randomNumbers(1);
  const rows = [];
  if (source.kind === "live") {
    rows.push(...gradientErrors("this model", source.model, source.pixels, source.label, source.knobs, random));
  }
  const small = (where, changes, knobs = {}) => {
    const model = smallModel(random, changes);
    rows.push(...gradientErrors(where, model, Float64Array.from({ length: 72 }, random), 3, knobs, random));
  };
  for (const hidden_act of Object.keys(ACTIVATIONS)) small(hidden_act, { hidden_act });
  small("heads knocked out", {}, { heads: Float64Array.of(1, 0, 1, 0, 0, 1) });
  small("blocks knocked out", {}, { attention: [true, false], mlp: [false, true] });
  small("no residual", {}, { residual: false });
  small("no positions, no CLS, no scale", { layer_norm_eps: 0.1 }, { positions: false, cls: false, scale: false });
  small("as published", {}, { published: true });
  return { worst: Math.max(...rows.map(({ error }) => error)), rows };
}

function showSelfTest({ worst, rows }) {
  const [section, title, list] = ["section", "h2", "pre"].map((name) => document.createElement(name));
  const line = ({ where, numeric, analytic, error }) =>
    `${error.toExponential(1)}  ${numeric.toExponential(6)}  ${analytic.toExponential(6)}  ${where}`;
  section.id = "selftest";
  title.textContent = `Self test: ${rows.length} gradients beside finite differences, worst relative error ${worst.toExponential(1)}`;
  list.textContent = ["error    differences    backward", ...rows.map(line)].join("\n");
  list.tabIndex = 0; // so that it can be scrolled by keys
  list.style.overflow = "auto";
  section.append(title, list);
  document.querySelector("main").before(section);
}

// view.js changes the hash when it starts, and says in data-ready that it has started.
if (location.hash === "#selftest") {
  new MutationObserver((_, observer) => {
    if (!document.body.dataset.ready) return;
    observer.disconnect();
    window.minivit.selftest = selfTest(window.minivit.source);
    showSelfTest(window.minivit.selftest);
  }).observe(document.body, { attributes: true, attributeFilter: ["data-ready"] });
}
