// The source of numbers of the live page: vit.js run on a drawing, anew when something about it has changed.

class Live {
  kind = "live";
  knocked = new Set(); // heads, as "layer.head"
  #knobs;
  #label = null; // null: the model's own answer
  #changes = 0; // how often something was changed
  #run = null; // the last {stages, tape}, while it holds
  #occlusion = null;
  #twin = null;

  // data: of the page (see live.py). Resolves to a Live on the first of its digits.
  static async open(data) {
    const decoded = async (entries) => {
      const arrays = await Promise.all(Object.values(entries).map(decode));
      return Object.fromEntries(Object.keys(entries).map((name, i) => [name, arrays[i]]));
    };
    const model = new Model(data.config, await decoded(data.weights));
    const twin = data.twin ? new Model(data.config, await decoded(data.twin)) : null;
    const [pictures, labels] = await Promise.all([decode(data.digits.pictures), decode(data.digits.labels)]);
    const digits = { ...data.digits, pictures: pictures.data, labels: Array.from(labels.data), count: labels.shape[0] };
    return new Live(model, data.answers, digits, twin);
  }

  // digits: pictures (count, H, W) in 0..255, labels, and the rescale_factor, mean and std (C,) that scale them.
  constructor(model, answers, digits, twin = null) {
    [this.model, this.answers, this.digits, this.twinModel] = [model, answers, digits, twin];
    this.config = sizes(model);
    this.can = { gradient: true, occlusion: true, knock: "all", twin: twin !== null, tape: true };
    this.#knobs = allKnobs(model.config);
    this.pick(0);
  }

  // ---- What the class changes ----

  // Take digit i of those to pick from, and its label.
  pick(i) {
    this.setDrawing(`digit${i}`);
    this.setLabel(this.digits.labels[i]);
  }

  // drawing: "digit12" of those to pick from, or the grey of each pixel, see asGreys.
  setDrawing(drawing) {
    const { H, W } = this.config;
    const [, digit] = drawing.match(/^digit(\d+)$/) ?? [];
    const greys = digit
      ? this.digits.pictures.subarray(digit * H * W, (Number(digit) + 1) * H * W)
      : Array.from(drawing, (grey) => Math.round((parseInt(grey, 17) * 255) / 16));
    this.setPixels(this.fromBrightness(Array.from(greys, (grey) => grey / 255)));
  }

  // pixels: (C, H, W) in the units of pixel_values.
  setPixels(pixels) {
    this.pixels = Float64Array.from(pixels);
    this.changed();
  }

  // Which class the loss is of; below 0: of the likeliest.
  setLabel(label) {
    this.#label = label < 0 ? null : label;
    this.changed();
  }

  // Whether nobody has said what the picture is.
  get guessed() {
    return this.#label === null;
  }

  get label() {
    return this.#label ?? likeliest(this.logits());
  }

  // changes: some of the knobs of allKnobs in vit.js.
  setKnobs(changes) {
    Object.assign(this.#knobs, changes);
    if (changes.heads) {
      const { h } = this.config;
      const silent = Array.from(changes.heads.keys()).filter((i) => !changes.heads[i]);
      this.knocked = new Set(silent.map((i) => `${Math.floor(i / h)}.${i % h}`));
    }
    this.changed();
  }

  // All but the heads; switched: as knobsOf takes it.
  setSwitched(switched) {
    this.setKnobs({ ...knobsOf(switched, this.model.config), heads: this.knobs.heads });
  }

  // Switch a head off, or on again.
  knock(layer, head) {
    const heads = this.knobs.heads.slice();
    const i = layer * this.config.h + head;
    heads[i] = 1 - heads[i];
    this.setKnobs({ heads });
  }

  get knobs() {
    return this.#knobs;
  }

  changed() {
    this.#changes++;
    [this.#run, this.#occlusion] = [null, null];
  }

  // Brightness (H, W), 0 black to 1 white, to pixel_values (C, H, W), and back: of the first channel.
  fromBrightness(brightness) {
    const { rescale_factor: factor, mean, std } = this.digits;
    return mean.flatMap((m, c) => Array.from(brightness, (b) => (b * 255 * factor - m) / std[c]));
  }

  brightness() {
    const { rescale_factor: factor, mean, std } = this.digits;
    return this.pixels.slice(0, this.config.H * this.config.W).map((x) => (x * std[0] + mean[0]) / factor / 255);
  }

  // ---- The numbers ----

  // {stages, tape} of the picture as it is, with every gradient.
  run() {
    if (this.#run === null) {
      this.#run = forward(this.model, this.pixels, this.#label, this.knobs);
      backward(this.#run.tape);
    }
    return this.#run;
  }

  get tape() {
    return this.run().tape;
  }

  get loss() {
    return this.run().stages.loss.data[0];
  }

  get stages() {
    return Object.keys(this.run().stages);
  }

  get picture() {
    const { C, H, W } = this.config;
    return { data: this.pixels, C, H, W };
  }

  logits() {
    return this.run().stages.logits.data;
  }

  probabilities() {
    return softmaxed(this.logits(), this.config.K);
  }

  scores(i, head) {
    return this.#ofHead(`layer.${i}.scores`, head);
  }

  attention(i, head) {
    return this.#ofHead(`layer.${i}.probabilities`, head);
  }

  query(i, head, t) {
    return this.#ofHead(`layer.${i}.query`, head).subarray(t * this.config.d, (t + 1) * this.config.d);
  }

  key(i, head, t) {
    return this.#ofHead(`layer.${i}.key`, head).subarray(t * this.config.d, (t + 1) * this.config.d);
  }

  #ofHead(name, head) {
    const { data } = this.run().stages[name];
    const length = data.length / this.config.h;
    return data.subarray(head * length, (head + 1) * length);
  }

  // The hidden states (T, D) after n blocks, and their gradients; 0: the embeddings.
  tokens(n) {
    return this.#afterBlocks(n).data;
  }

  tokenGradients(n) {
    return gradientAt(this.#afterBlocks(n));
  }

  #afterBlocks(n) {
    return this.run().stages[n === 0 ? "embeddings.output" : `layer.${n - 1}.output`];
  }

  // What CLS attends to in layer i, mean over the heads that are left (over all where none is): (T,).
  clsRow(i) {
    const { h, T } = this.config;
    const all = Array.from({ length: h }, (_, head) => head);
    const left = all.filter((head) => !this.knocked.has(`${i}.${head}`));
    const heads = left.length ? left : all;
    const row = new Float64Array(T);
    for (const head of heads) this.attention(i, head).subarray(0, T).forEach((p, k) => (row[k] += p / heads.length));
    return row;
  }

  // The numbers of one token (and head) at a stage, with their gradients.
  stage(name, { token = 0, head = 0 } = {}) {
    const x = this.run().stages[name];
    const places = this.#places(name, x.shape, token, head);
    const first = places.map((i) => x.data[i]);
    const gradient = places.map((i) => (x.grad ? x.grad[i] : 0));
    return {
      shape: x.shape,
      count: places.length,
      first,
      gradient,
      norm: Math.hypot(...first),
      gradientNorm: Math.hypot(...gradient),
      whole: true,
    };
  }

  // Where in the stage the numbers of a token lie: of CLS there are no pixels, and no patch.
  #places(name, shape, token, head) {
    const { C, H, W, P, N } = this.config;
    const range = (row, length) => Array.from({ length }, (_, i) => row * length + i);
    if (shape.length < 2) return range(0, size(shape)); // logits, loss
    if (name === "pixel_values") {
      const places = Array.from(patchPlaces(C, H, W, ...P));
      return token === 0 ? [] : places.slice(((token - 1) * places.length) / N, (token * places.length) / N);
    }
    const row = shape.length === 3 ? head * shape[1] + token : name === "embeddings.patches" ? token - 1 : token;
    return row < 0 || row >= size(shape.slice(0, -1)) ? [] : range(row, shape[shape.length - 1]);
  }

  // What the loss has to say of each pixel: the sum over the channels, with its sign.
  pixelGradient() {
    const { H, W } = this.config;
    const data = new Float64Array(H * W);
    gradientAt(this.run().stages.pixel_values).forEach((g, i) => (data[i % (H * W)] += g));
    return { shape: [H, W], data };
  }

  // Whether occlusion() is known: it takes as many forward passes as there are patches.
  get occluded() {
    return this.#occlusion !== null;
  }

  // The fall of the label's logit when a patch is hidden behind 0, as minivit.lens.occlusion: (N,).
  occlusion() {
    if (this.#occlusion === null) {
      const { C, H, W, P, N } = this.config;
      const places = patchPlaces(C, H, W, ...P);
      this.#occlusion = new Float64Array(N).map((_, patch) => {
        const pixels = this.pixels.slice();
        for (const i of places.subarray((patch * places.length) / N, ((patch + 1) * places.length) / N)) pixels[i] = 0;
        const { stages } = forward(this.model, pixels, this.label, this.knobs);
        return this.logits()[this.label] - stages.logits.data[this.label];
      });
    }
    return this.#occlusion;
  }

  // The gradient of the loss at one number of pixel_values, twice: by central differences, and by backward.
  finiteDifference(index, eps = 1e-5) {
    const lossAt = (change) => {
      const pixels = this.pixels.slice();
      pixels[index] += change;
      return forward(this.model, pixels, this.label, this.knobs).stages.loss.data[0];
    };
    const analytic = gradientAt(this.run().stages.pixel_values)[index];
    return { numeric: (lossAt(eps) - lossAt(-eps)) / (2 * eps), analytic };
  }

  // The untrained twin on the same picture, with the same knobs.
  get twin() {
    if (this.twinModel === null) return null;
    this.#twin ??= { source: new Live(this.twinModel, this.answers, this.digits), changes: -1 };
    const { source, changes } = this.#twin;
    if (changes !== this.#changes) {
      source.setPixels(this.pixels);
      source.setLabel(this.#label ?? -1);
      source.setKnobs(this.knobs);
      this.#twin.changes = this.#changes;
    }
    return source;
  }
}

// A drawing as a link has it: of each pixel its grey, 0 to 16, as one of 0 to 9 and a to g. The digits in the box have
// the same 17 greys. brightness: of each pixel, 0 to 1.
function asGreys(brightness) {
  return Array.from(brightness, (b) => Math.round(16 * b).toString(17)).join("");
}

// The knobs of "positions,attention.1", all heads in: what is named is not as it usually is.
function knobsOf(switched, config) {
  const knobs = allKnobs(config);
  for (const name of switched.split(",").filter(Boolean)) {
    const [knob, layer] = name.split(".");
    if (layer === undefined) knobs[knob] = !knobs[knob];
    else knobs[knob][layer] = false;
  }
  return knobs;
}

// All names that knobsOf knows.
function switchNames({ num_hidden_layers: L }) {
  const layers = [...Array(L).keys()].flatMap((layer) => [`attention.${layer}`, `mlp.${layer}`]);
  return [...layers, "positions", "cls", "residual", "scale", "published"];
}

// 0 where the loss does not depend on a stage.
const gradientAt = (x) => x.grad ?? new Float64Array(x.data.length);

// The sizes of a model in the alphabet of the lessons.
function sizes({ config, parameters }) {
  const [D, h, P] = [config.hidden_size, config.num_attention_heads, config.patch_size];
  const [H, W] = config.image_size;
  const grid = [H / P[0], W / P[1]];
  const N = grid[0] * grid[1];
  return {
    L: config.num_hidden_layers,
    h,
    d: D / h,
    D,
    F: config.intermediate_size,
    N,
    T: N + 1,
    P,
    C: config.num_channels,
    H,
    W,
    K: parameters["classifier.weight"].shape[0],
    grid,
    eps: config.layer_norm_eps,
  };
}
