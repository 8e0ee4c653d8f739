// The source of numbers of a photo page: what recording.py measured of one photo and one model.
//
// Attention and scores are computed here, from q and k; all else was recorded. Of each stage the length of a token's
// vector and its first numbers are kept, of hidden states, q and k all of them, rounded to steps (see pack.py).

const COMPUTED = new Set(["query", "key", "scores", "probabilities"]); // in the page, and not recorded

class Recorded {
  kind = "photo";
  knocked = new Set(); // one head at most, as "layer.head": each head's answers were recorded without it alone
  twin = null;
  #kept = new Map(); // what was computed, by name

  // data: of the page. Resolves to the source of photo n, and of its untrained twin.
  static async open(data, n) {
    const photo = data.photos[n];
    const source = new Recorded(data, photo, photo, await decodeAll(photo));
    source.twin = new Recorded(data, photo, photo.twin, await decodeAll(photo.twin));
    return source;
  }

  // photo: the recording; own: it, or its twin; arrays: own's, decoded.
  constructor(data, photo, own, arrays) {
    const { config } = data;
    const [P, grid] = [config.patch_size, photo.grid];
    const [D, h, N] = [config.hidden_size, config.num_attention_heads, grid[0] * grid[1]];
    this.config = {
      L: config.num_hidden_layers,
      h,
      d: D / h,
      D,
      F: config.intermediate_size,
      N,
      T: N + 1,
      P,
      C: config.num_channels,
      H: grid[0] * P[0],
      W: grid[1] * P[1],
      K: data.answers.length,
      grid,
      eps: config.layer_norm_eps,
    };
    [this.answers, this.picture, this.label] = [data.answers, photo.picture, own.label];
    [this.own, this.arrays] = [own, arrays];
    const whole = own === photo;
    this.can = { gradient: whole, occlusion: whole, knock: whole ? "heads" : null, twin: whole, tape: false };
    this.#place(data.stages);
    const names = data.stages.map(({ name }) => name);
    this.stages = names.filter((name) => whole || COMPUTED.has(name.replace(/.*\./, "")));
  }

  // Where each stage's rows of values and of gradients begin among those of all stages.
  #place(stages) {
    const { N, T, h } = this.config;
    const counts = { patches: N, tokens: T, heads: h * T, cls: 1, all: 1 };
    let [value, gradient] = [0, 0];
    this.places = new Map();
    stages.forEach((stage, n) => {
      this.places.set(stage.name, { ...stage, number: n, value, gradient });
      gradient += counts[stage.of];
      if (!COMPUTED.has(stage.name.replace(/.*\./, ""))) value += counts[stage.of];
    });
  }

  // ---- Answers, and those without a head ----

  logits() {
    return this.#answer("logits");
  }

  probabilities() {
    return this.#answer("probabilities");
  }

  #answer(name) {
    const out = this.#out();
    if (out === null) return Float64Array.from(this.own[name]);
    const K = this.config.K;
    const row = out.layer * this.config.h + out.head;
    return Float64Array.from(this.arrays.knocked[name].data.subarray(row * K, (row + 1) * K));
  }

  // Take a head out in place of the one that was, or put it back.
  knock(layer, head) {
    if (!this.can.knock) return;
    const name = `${layer}.${head}`;
    this.knocked = new Set(this.knocked.has(name) ? [] : [name]);
  }

  #out() {
    if (this.knocked.size === 0) return null;
    const [layer, head] = [...this.knocked][0].split(".").map(Number);
    return { layer, head };
  }

  // What CLS attends to in layer i, mean over the heads that are left (over all where none is): (T,).
  clsRow(i) {
    const { L, h, T } = this.config;
    const out = this.#out();
    if (out !== null && i > out.layer) {
      const before = (h * out.layer * (2 * L - 1 - out.layer)) / 2; // rows of the layers above: L - 1 - layer a head
      const row = before + out.head * (L - 1 - out.layer) + (i - out.layer - 1);
      return Float64Array.from(this.arrays.knocked.looks.data.subarray(row * T, (row + 1) * T));
    }
    let heads = Array.from({ length: h }, (_, head) => head);
    if (out !== null && i === out.layer && h > 1) heads = heads.filter((head) => head !== out.head);
    const mean = new Float64Array(T);
    for (const head of heads) {
      const attention = this.attention(i, head);
      for (let k = 0; k < T; k++) mean[k] += attention[k] / heads.length;
    }
    return mean;
  }

  // ---- Tokens and attention ----

  // The hidden states (T, D) after n blocks, 0: the embeddings.
  tokens(n) {
    const { T, D } = this.config;
    const states = this.arrays.hidden.data;
    return this.#once(`tokens ${n}`, () => Float64Array.from(states.subarray(n * T * D, (n + 1) * T * D)));
  }

  // Of their gradients only each token's length and first numbers were recorded, see stage().
  tokenGradients() {
    return null;
  }

  query(i, head, t) {
    return this.#ofHead("query", i, head, t);
  }

  key(i, head, t) {
    return this.#ofHead("key", i, head, t);
  }

  #ofHead(name, i, head, t) {
    const { h, T, d } = this.config;
    const row = (i * h + head) * T + t;
    return Float64Array.from(this.arrays[name].data.subarray(row * d, (row + 1) * d));
  }

  // q . k / sqrt(d): (T, T), a row for each query.
  scores(i, head) {
    return this.#once(`scores ${i}.${head}`, () => {
      const { h, T, d } = this.config;
      const from = (i * h + head) * T * d;
      const [Q, K] = [this.arrays.query.data, this.arrays.key.data];
      const scores = new Float64Array(T * T);
      for (let q = 0; q < T; q++) {
        for (let k = 0; k < T; k++) {
          let sum = 0;
          for (let c = 0; c < d; c++) sum += Q[from + q * d + c] * K[from + k * d + c];
          scores[q * T + k] = sum / Math.sqrt(d);
        }
      }
      return scores;
    });
  }

  // softmax of the scores over the keys: (T, T), rows sum to 1.
  attention(i, head) {
    return this.#once(`attention ${i}.${head}`, () => softmaxed(this.scores(i, head), this.config.T));
  }

  #once(name, compute) {
    if (!this.#kept.has(name)) this.#kept.set(name, compute());
    return this.#kept.get(name);
  }

  // ---- Stages ----

  // The first numbers of one token (and head) at a stage, with their gradients; none of what was not recorded: of CLS
  // there are no pixels and no patch, and the twin has what is computed from its q and k.
  stage(name, { token = 0, head = 0 } = {}) {
    const { T } = this.config;
    const place = this.places.get(name);
    const shape = this.#shape(place);
    const row = { patches: token - 1, tokens: token, heads: head * T + token, cls: -token, all: 0 }[place.of];
    const none = { shape, count: 0, first: [], gradient: null, norm: 0, gradientNorm: 0, whole: true };
    if (row < 0) return { ...none, gradient: this.can.gradient ? [] : null };
    const count = place.n ?? T;
    const gradient = this.#row("gradients", place, place.gradient + row, count);
    const value = this.#computed(name, token, head) ?? this.#row("values", place, place.value + row, count);
    if (value === null) return none;
    const whole = value.first.length === count;
    return { shape, count, ...value, gradient: gradient?.first ?? null, gradientNorm: gradient?.norm ?? 0, whole };
  }

  // sum(dp * p) over all keys of one query: it was recorded, for of dp there are only the first numbers.
  averageGradient(i, head, t) {
    const { h, T } = this.config;
    return this.arrays.average.data[(i * h + head) * T + t];
  }

  // The shape of a stage, as lens.trace has it of one picture.
  #shape({ name, of, n }) {
    const { C, H, W, N, T, h } = this.config;
    if (name === "pixel_values") return [C, H, W];
    return { patches: [N, n], tokens: [T, n], heads: [h, T, n ?? T], cls: [1, n], all: [n] }[of];
  }

  // One recorded row: {norm, first}, or null of the twin.
  #row(kind, { number }, row, count) {
    if (!this.arrays.stages) return null;
    const { shape, data } = this.arrays.stages[kind];
    const scale = this.own.stages.scales[number][kind === "values" ? 0 : 1];
    const [norm, ...first] = data.subarray(row * shape[1], (row + 1) * shape[1]).map((x) => x * scale);
    return { norm, first: first.slice(0, count) };
  }

  // Query, key, scores and probabilities of a token, all of its numbers; null of another stage.
  #computed(name, token, head) {
    const T = this.config.T;
    const [, i, what] = name.split(".");
    const row = (matrix) => matrix.subarray(token * T, (token + 1) * T);
    const compute = {
      query: () => this.query(i, head, token),
      key: () => this.key(i, head, token),
      scores: () => row(this.scores(i, head)),
      probabilities: () => row(this.attention(i, head)),
    }[what];
    if (!compute) return null;
    const first = Array.from(compute());
    return { norm: Math.hypot(...first), first };
  }

  // ---- The picture ----

  // The fall of the answer's logit when a patch is hidden: (N,), or null.
  occlusion() {
    return this.arrays.occlusion ? this.#once("occlusion", () => Float64Array.from(this.arrays.occlusion.data)) : null;
  }

  // The sum over the channels of |d logit / d pixel|: {shape: [H, W], data}, or null.
  pixelGradient() {
    const found = this.arrays.pixel_gradient;
    return found ? { shape: found.shape, data: this.#once("pixels", () => Float64Array.from(found.data)) } : null;
  }
}

// Every entry in an object decoded, at whatever depth but in a twin; all else is left out.
async function decodeAll(found) {
  const arrays = {};
  for (const [name, value] of Object.entries(found)) {
    if (name === "twin" || value === null || typeof value !== "object" || Array.isArray(value)) continue;
    arrays[name] = "dtype" in value ? await decode(value) : await decodeAll(value);
  }
  return arrays;
}
