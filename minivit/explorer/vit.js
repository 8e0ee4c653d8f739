// The Vision Transformer in the page: the tape, the ops, each with its way back, and the model. Names as in minivit.
//
// Shapes, of one picture: C channels, H W pixels, P patch side, N patches, T = N + 1 tokens (CLS is token 0), D hidden
// size, h heads, d = D / h, F MLP size, K classes, L layers; q and k index query and key tokens. Numbers are float64,
// in flat arrays, row after row.

// ---- The tape ----

class Tensor {
  constructor(data, shape, name = "") {
    this.data = data; // Float64Array, the last axis runs fastest
    this.shape = shape; // [2, 3] for example; [] is one number
    this.name = name; // a stage's, a parameter's, or nothing
    this.grad = null; // Float64Array after backward(), of the same shape
  }
}

const zeros = (...shape) => new Tensor(new Float64Array(size(shape)), shape);
const size = (shape) => shape.reduce((product, side) => product * side, 1);
const last = (x) => x.shape[x.shape.length - 1]; // the length of its rows

let tape = []; // the nodes of the forward pass that is under way, in order

// Makes an op of `compute`, which takes Tensors and options, and returns [y, backward]. backward takes dy, the gradient
// of y, and returns one gradient for each Tensor. Each call becomes a node of the tape, whose `formula` and
// `backwardFormula` say what was done; `again` does it again, with the numbers that the inputs have by then.
function differentiable(op, formula, backwardFormula, compute) {
  return (...args) => {
    const [output, backward] = compute(...args);
    const inputs = args.filter((x) => x instanceof Tensor);
    const again = () => output.data.set(compute(...args)[0].data);
    tape.push({ op, formula, backwardFormula, inputs, output, backward, again, stage: null, gradients: null });
    return output;
  };
}

// Walks the tape in reverse: every node once, after all that use its output. Where two roads leave a tensor, two
// gradients come back to it, and are added. Each node keeps in `gradients` what it gave to its inputs.
function backward(nodes) {
  for (const { inputs, output } of nodes) for (const x of [...inputs, output]) x.grad = null; // of an earlier pass
  nodes[nodes.length - 1].output.grad = Float64Array.of(1);
  for (let n = nodes.length - 1; n >= 0; n--) {
    const node = nodes[n];
    if (node.output.grad === null) continue; // the loss does not depend on it
    node.gradients = node.backward(node.output.grad);
    node.inputs.forEach((x, i) => {
      x.grad = x.grad === null ? node.gradients[i] : plus(x.grad, node.gradients[i]);
    });
  }
}

function plus(a, b) {
  const sum = new Float64Array(a.length);
  for (let i = 0; i < a.length; i++) sum[i] = a[i] + b[i];
  return sum;
}

// ---- Products of matrices, which are most of the work ----

// y = a b^T: (n, k), (m, k) -> (n, m), both read along their rows: two rows of a times four of b at once, since a sum
// alone waits for itself. Past the end the last row is read again, and its sums are the same.
function product(a, b, n, k, m) {
  const y = new Float64Array(n * m);
  for (let j = 0; j < m; j += 4) {
    const j1 = Math.min(j + 1, m - 1), j2 = Math.min(j + 2, m - 1), j3 = Math.min(j + 3, m - 1);
    for (let i = 0; i < n; i += 2) {
      const i1 = Math.min(i + 1, n - 1);
      let y00 = 0, y01 = 0, y02 = 0, y03 = 0, y10 = 0, y11 = 0, y12 = 0, y13 = 0;
      for (let c = 0; c < k; c++) {
        const a0 = a[i * k + c], a1 = a[i1 * k + c];
        const b0 = b[j * k + c], b1 = b[j1 * k + c], b2 = b[j2 * k + c], b3 = b[j3 * k + c];
        y00 += a0 * b0; y01 += a0 * b1; y02 += a0 * b2; y03 += a0 * b3;
        y10 += a1 * b0; y11 += a1 * b1; y12 += a1 * b2; y13 += a1 * b3;
      }
      y[i * m + j] = y00; y[i * m + j1] = y01; y[i * m + j2] = y02; y[i * m + j3] = y03;
      y[i1 * m + j] = y10; y[i1 * m + j1] = y11; y[i1 * m + j2] = y12; y[i1 * m + j3] = y13;
    }
  }
  return y;
}

// (n, m) -> (m, n)
function transposed(a, n, m) {
  const t = new Float64Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) t[j * n + i] = a[i * m + j];
  return t;
}

// A formula on matrices, (h, rows, columns) each, head by head; its results are stacked again.
function headByHead(arrays, h, formula) {
  const results = [];
  for (let head = 0; head < h; head++) {
    const ofHead = (x) => x.subarray((head * x.length) / h, ((head + 1) * x.length) / h);
    formula(...arrays.map(ofHead)).forEach((y, i) => {
      results[i] ??= new Float64Array(h * y.length);
      results[i].set(y, head * y.length);
    });
  }
  return results;
}

// ---- The ops ----

// x: (..., in), weight: (out, ...), as many numbers a row as x has, bias: (out,) or none. Returns (..., out).
const linear = differentiable(
  "linear",
  "y = x W^T + b",
  "dx = dy W, dW = dy^T x, db = sum(dy)",
  (x, weight, bias) => {
    const [rows, wide, out] = [x.data.length / last(x), last(x), weight.shape[0]];
    const y = product(x.data, weight.data, rows, wide, out);
    if (bias) for (let i = 0; i < y.length; i++) y[i] += bias.data[i % out];

    function backward(dy) {
      const dx = product(dy, transposed(weight.data, out, wide), rows, out, wide);
      const dweight = product(transposed(dy, rows, out), transposed(x.data, rows, wide), out, rows, wide);
      return bias ? [dx, dweight, sumOfRows(dy, out)] : [dx, dweight];
    }

    return [new Tensor(y, [...x.shape.slice(0, -1), out]), backward];
  },
);

function sumOfRows(dy, out) {
  const sum = new Float64Array(out);
  for (let i = 0; i < dy.length; i++) sum[i % out] += dy[i];
  return sum;
}

// The picture cut into patches, one row each, channel after channel: (C, H, W) -> (N, C * P * Q).
const patches = differentiable(
  "patches",
  "rows of x, one for each P x Q pixels",
  "dx: each number back where it was cut",
  (x, [P, Q]) => {
    const [C, H, W] = x.shape;
    const places = patchPlaces(C, H, W, P, Q);
    const y = zeros((H / P) * (W / Q), C * P * Q);
    places.forEach((place, i) => (y.data[i] = x.data[place]));

    function backward(dy) {
      const dx = new Float64Array(x.data.length);
      places.forEach((place, i) => (dx[place] = dy[i]));
      return [dx];
    }

    return [y, backward];
  },
);

// Where in (C, H, W) each number of (N, C * P * Q) is found.
function patchPlaces(C, H, W, P, Q) {
  const places = [];
  for (let row = 0; row < H; row += P) {
    for (let column = 0; column < W; column += Q) {
      for (let c = 0; c < C; c++) {
        for (let i = row; i < row + P; i++) {
          for (let j = column; j < column + Q; j++) places.push((c * H + i) * W + j);
        }
      }
    }
  }
  return Int32Array.from(places);
}

// CLS in front of the patches: (1, D), (N, D) -> (T, D).
const concatenate = differentiable(
  "concatenate",
  "y = [cls, patches]",
  "dcls = dy[0], dpatches = dy[1:]",
  (cls, x) => {
    const D = last(x);
    const y = zeros(x.shape[0] + 1, D);
    y.data.set(cls.data);
    y.data.set(x.data, D);
    return [y, (dy) => [dy.slice(0, D), dy.slice(D)]];
  },
);

const add = differentiable("add", "y = a + b", "da = dy, db = dy", (a, b) => [
  new Tensor(plus(a.data, b.data), a.shape),
  (dy) => [dy, dy],
]);

// Times a number: 1 / sqrt(d), or 0 for what is knocked out.
const scaleBy = differentiable("times", "y = c x, c = 1 / sqrt(d), or 1 without it; 0 of what is switched off", "dx = c dy", (x, c) => {
  const scaled = (a) => a.map((number) => c * number);
  return [new Tensor(scaled(x.data), x.shape), (dy) => [scaled(dy)]];
});

// Each token to mean 0 and variance 1, then a learned scale and shift: (T, D) -> (T, D).
// n = (x - mean) / sqrt(var + eps), dn = dy * weight; mean and var depend on x, too.
const layerNorm = differentiable(
  "layer_norm",
  "y = (x - mean) / sqrt(var + eps) * weight + bias",
  "dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(var + eps) where dn = dy * weight, " +
    "dweight = sum(dy * n), dbias = sum(dy)",
  (x, weight, bias, eps) => {
    const D = last(x);
    const [n, rstd] = normalised(x.data, D, eps);
    const y = n.map((number, i) => number * weight.data[i % D] + bias.data[i % D]);

    function backward(dy) {
      const dn = dy.map((g, i) => g * weight.data[i % D]);
      const [mean, meanN] = [rowMeans(dn, null, D), rowMeans(dn, n, D)];
      const dx = new Float64Array(dy.length);
      for (let i = 0; i < dx.length; i++) {
        const t = Math.floor(i / D);
        dx[i] = (dn[i] - mean[t] - n[i] * meanN[t]) * rstd[t];
      }
      return [dx, sumOfRows(dy.map((g, i) => g * n[i]), D), sumOfRows(dy, D)];
    }

    return [new Tensor(y, x.shape), backward];
  },
);

// n (T, D) and 1 / sqrt(var + eps) (T,).
function normalised(x, D, eps) {
  const mean = rowMeans(x, null, D);
  const n = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) n[i] = x[i] - mean[Math.floor(i / D)];
  const rstd = rowMeans(n, n, D).map((variance) => 1 / Math.sqrt(variance + eps));
  for (let i = 0; i < x.length; i++) n[i] *= rstd[Math.floor(i / D)];
  return [n, rstd];
}

// The sum of a, or of a * b, over each row of D numbers; and the mean.
function rowSums(a, b, D) {
  const sums = new Float64Array(a.length / D);
  for (let i = 0; i < a.length; i++) sums[Math.floor(i / D)] += b ? a[i] * b[i] : a[i];
  return sums;
}

const rowMeans = (a, b, D) => rowSums(a, b, D).map((sum) => sum / D);

// The heads apart: (T, h * d) -> (h, T, d).
const splitHeads = differentiable(
  "split heads",
  "y[head, t] = x[t, head * d : (head + 1) * d]",
  "dx: each number back where it was",
  (x, h) => [apart(x.data, x.shape[0], h, last(x) / h), (dy) => [together(dy, x.shape[0], h, last(x) / h).data]],
);

// The heads side by side: (h, T, d) -> (T, h * d).
const joinHeads = differentiable(
  "join heads",
  "y[t, head * d : (head + 1) * d] = x[head, t]",
  "dx: each number back where it was",
  (x) => {
    const [h, T, d] = x.shape;
    return [together(x.data, T, h, d), (dy) => [apart(dy, T, h, d).data]];
  },
);

function apart(data, T, h, d) {
  const y = zeros(h, T, d);
  for (let head = 0; head < h; head++) {
    for (let t = 0; t < T; t++) {
      const from = (t * h + head) * d;
      y.data.set(data.subarray(from, from + d), (head * T + t) * d);
    }
  }
  return y;
}

function together(data, T, h, d) {
  const y = zeros(T, h * d);
  for (let head = 0; head < h; head++) {
    for (let t = 0; t < T; t++) {
      const from = (head * T + t) * d;
      y.data.set(data.subarray(from, from + d), (t * h + head) * d);
    }
  }
  return y;
}

// Every query asks every key: (h, q, d), (h, k, d) -> (h, q, k).
const scores = differentiable("dot products", "s = q k^T", "dq = ds k, dk = ds^T q", (q, k) => {
  const [h, T, d] = q.shape;
  const s = headByHead([q.data, k.data], h, (q, k) => [product(q, k, T, d, T)]);

  function backward(ds) {
    return headByHead([ds, q.data, k.data], h, (ds, q, k) => [
      product(ds, transposed(k, T, d), T, T, d),
      product(transposed(ds, T, T), transposed(q, T, d), T, T, d),
    ]);
  }

  return [new Tensor(s[0], [h, T, T]), backward];
});

// Scores to probabilities, along the last axis; shifted by the maximum so that exp cannot overflow.
const softmax = differentiable("softmax", "y = exp(x) / sum(exp(x))", "dx = y * (dy - sum(dy * y))", (x) => {
  const K = last(x);
  const y = softmaxed(x.data, K);

  function backward(dy) {
    const sums = rowSums(dy, y, K);
    return [y.map((p, i) => p * (dy[i] - sums[Math.floor(i / K)]))];
  }

  return [new Tensor(y, x.shape), backward];
});

function softmaxed(x, K) {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += K) {
    let [largest, sum] = [-Infinity, 0];
    for (let i = start; i < start + K; i++) largest = Math.max(largest, x[i]);
    for (let i = start; i < start + K; i++) sum += y[i] = Math.exp(x[i] - largest);
    for (let i = start; i < start + K; i++) y[i] /= sum;
  }
  return y;
}

// What heads see, or 0 for a head that is knocked out: (h, q, k), mask of h numbers -> (h, q, k).
const headMask = differentiable("head mask", "y = x * mask", "dx = dy * mask", (x, mask) => {
  const masked = (a) => a.map((number, i) => number * mask[Math.floor((i * mask.length) / a.length)]);
  return [new Tensor(masked(x.data), x.shape), (dy) => [masked(dy)]];
});

// What the queries get: a sum over the keys of their values. (h, q, k), (h, k, d) -> (h, q, d).
const context = differentiable("context", "y = p v", "dp = dy v^T, dv = p^T dy", (p, v) => {
  const [h, T, d] = v.shape;
  const y = headByHead([p.data, v.data], h, (p, v) => [product(p, transposed(v, T, d), T, T, d)]);

  function backward(dy) {
    return headByHead([dy, p.data, v.data], h, (dy, p, v) => [
      product(dy, v, T, d, T),
      product(transposed(p, T, T), transposed(dy, T, d), T, T, d),
    ]);
  }

  return [new Tensor(y[0], v.shape), backward];
});

// The einsum "nhn,nhd->nhd" of lesson 12's notebook: a letter twice takes the diagonal, so a token gets its own value
// times one number, and no other token's.
const publishedContext = differentiable(
  "context, as published",
  "y[n] = p[n, n] v[n]",
  "dp[n, n] = dy[n] . v[n], dv[n] = p[n, n] dy[n]",
  (p, v) => {
    const [h, T, d] = v.shape;
    const diagonal = (i) => i * T + (i % T); // where row i of (h * T, T) has its own token
    const y = v.data.map((number, i) => p.data[diagonal(Math.floor(i / d))] * number);

    function backward(dy) {
      const dp = new Float64Array(h * T * T);
      for (let i = 0; i < dy.length; i++) dp[diagonal(Math.floor(i / d))] += dy[i] * v.data[i];
      return [dp, dy.map((g, i) => p.data[diagonal(Math.floor(i / d))] * g)];
    }

    return [new Tensor(y, v.shape), backward];
  },
);

// The token that answers: (T, D) -> (D,).
const firstToken = differentiable("first token", "y = x[0]", "dx[0] = dy, 0 for all others", (x) => {
  const backward = (dy) => {
    const dx = new Float64Array(x.data.length);
    dx.set(dy);
    return [dx];
  };
  return [new Tensor(x.data.slice(0, last(x)), [last(x)]), backward];
});

// How surprised the model is by the right label, in nats: (K,) -> one number.
const crossEntropy = differentiable(
  "cross_entropy",
  "loss = log(sum(exp(logits))) - logits[label]",
  "dlogits = softmax(logits) - t, t = 1 at the label",
  (logits, label) => {
    const largest = logits.data.reduce((a, b) => Math.max(a, b));
    const sum = logits.data.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    const loss = Math.log(sum) + largest - logits.data[label];

    function backward([dy]) {
      const p = softmaxed(logits.data, logits.data.length);
      return [p.map((chance, k) => dy * (chance - (k === label ? 1 : 0)))];
    }

    return [new Tensor(Float64Array.of(loss), []), backward];
  },
);

// ---- Activations, number by number: s = part(x) is kept for the way back, y = f(x, s), dx = dy * slope(x, s) ----

function activation(op, formula, backwardFormula, part, f, slope) {
  return differentiable(op, formula, backwardFormula, (x) => {
    const s = x.data.map((number) => part(number));
    const y = x.data.map((number, i) => f(number, s[i]));
    return [new Tensor(y, x.shape), (dy) => [dy.map((g, i) => g * slope(x.data[i], s[i]))]];
  });
}

// (1 + z/2) exp(z^2) erfc(z) / 2, z = |x| / sqrt(2), in powers of t = (z - 2) / (z + 2), highest first. After Shepherd
// and Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x)"; see minivit/machinery/normal.py.
const POWERS = [
  5.2951665717859e-10, -9.55586864303947e-10, -6.608162758816319e-9, 3.2602173072007682e-9, 3.482921471704568e-8,
  1.8000422646039968e-8, -8.933614739584267e-8, -1.631230467648336e-7, 6.877254116592984e-9, 5.152849607645552e-7,
  9.075177540270833e-7, -2.888211805755713e-7, -4.02893793357367e-6, -5.421492664982205e-6, 8.536890566909455e-6,
  3.611709414752403e-5, 8.59291593744488e-6, -0.00016576828834507308, -0.00020932402163955556, 0.0007726530070506644,
  0.0016197962672910334, -0.005377665472018267, -0.00911055787672952, 0.06986802313900738, -0.17179017110345254,
  0.25539567631050575,
];

// Phi(x), the chance that a standard normal number is below x, to about 3e-16; JavaScript has no erf.
function normal(x) {
  const r = Math.sqrt(8) / (Math.abs(x) + Math.sqrt(8)); // 1 / (1 + z/2)
  const t = 1 - 2 * r;
  let [odd, even] = [0, 0]; // Horner twice, in t^2: half as long to wait
  for (let i = 0; i < POWERS.length; i += 2) {
    odd = odd * t * t + POWERS[i];
    even = even * t * t + POWERS[i + 1];
  }
  const tail = (odd * t + even) * r * Math.exp((-x * x) / 2); // the chance that it is above |x|
  return x < 0 ? tail : 1 - tail;
}

const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const sigmoid = (x) => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x))); // neither exp overflows
const SLOPE = Math.sqrt(2 / Math.PI);

const gelu = activation(
  "gelu",
  "y = x * Phi(x), Phi the normal distribution",
  "dx = dy * (Phi(x) + x * phi(x)), phi its density",
  normal,
  (x, s) => x * s,
  (x, s) => s + x * density(x),
);
const geluTanh = activation(
  "gelu_tanh",
  "y = x * (1 + s) / 2, s = tanh(sqrt(2 / pi) * (x + 0.044715 x^3))",
  "dx = dy * ((1 + s) / 2 + x * (1 - s^2) / 2 * du), du = sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)",
  (x) => Math.tanh(SLOPE * (x + 0.044715 * x * x * x)),
  (x, s) => 0.5 * x * (1 + s),
  (x, s) => 0.5 * (1 + s) + 0.5 * x * (1 - s * s) * SLOPE * (1 + 3 * 0.044715 * x * x),
);
const quickGelu = activation(
  "quick_gelu",
  "y = x * s, s = sigmoid(1.702 x)",
  "dx = dy * (s + 1.702 x * s * (1 - s))",
  (x) => sigmoid(1.702 * x),
  (x, s) => x * s,
  (x, s) => s + 1.702 * x * s * (1 - s),
);
const silu = activation(
  "silu",
  "y = x * s, s = sigmoid(x)",
  "dx = dy * (s + x * s * (1 - s))",
  sigmoid,
  (x, s) => x * s,
  (x, s) => s + x * s * (1 - s),
);
const squash = activation(
  "sigmoid",
  "y = s, s = 1 / (1 + exp(-x))",
  "dx = dy * s * (1 - s)",
  sigmoid,
  (x, s) => s,
  (x, s) => s * (1 - s),
);
const tanh = activation(
  "tanh",
  "y = s, s = tanh(x)",
  "dx = dy * (1 - s^2)",
  Math.tanh,
  (x, s) => s,
  (x, s) => 1 - s * s,
);
const relu = activation(
  "relu",
  "y = max(x, 0)",
  "dx = dy where x > 0, else 0",
  (x) => +(x > 0),
  (x) => Math.max(x, 0),
  (x, s) => s,
);

// By the names that Hugging Face configs use.
const ACTIVATIONS = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  relu,
  tanh,
  gelu_python: gelu,
  gelu_python_tanh: geluTanh,
  gelu_fast: geluTanh,
  gelu_accurate: geluTanh,
  quick_gelu: quickGelu,
  sigmoid: squash,
  silu,
  swish: silu,
};

// ---- The model ----

// A ViTForImageClassification. config: as config.json has it, its sizes as pairs; weights: {hub name: {shape, data}}.
class Model {
  constructor(config, weights) {
    this.config = config;
    this.parameters = {};
    for (const [name, { shape, data }] of Object.entries(weights)) {
      this.parameters[name] = new Tensor(Float64Array.from(data), shape, name);
    }
  }

  // [weight, bias] of a layer; no bias where it has none.
  layer(name) {
    const named = (kind) => this.parameters[`${name}.${kind}`];
    return [named("weight"), named("bias")].filter(Boolean);
  }
}

// What can be switched off, or exchanged. heads: (L, h) of 1 and 0; attention and mlp: of each layer; positions, cls
// and residual: counted as 0 where false; scale: by 1 / sqrt(d); published: the einsum "nhn,nhd->nhd".
function allKnobs({ num_hidden_layers: L, num_attention_heads: h }) {
  return {
    heads: new Float64Array(L * h).fill(1),
    attention: new Array(L).fill(true),
    mlp: new Array(L).fill(true),
    positions: true,
    cls: true,
    residual: true,
    scale: true,
    published: false,
  };
}

const likeliest = (logits) => Math.max(logits.indexOf(Math.max(...logits)), 0);
const unless = (kept, x) => (kept ? x : scaleBy(x, 0));

// From the pixels (C, H, W) to the loss at a label, null for the likeliest. Returns {stages, tape}: {name: Tensor},
// every number on the way by the names of minivit.lens.trace and in their order, then "loss"; and the nodes.
function forward(model, pixels, label, knobs = allKnobs(model.config)) {
  const { config, parameters } = model;
  const stages = {};
  tape = [];

  function keep(name, x) {
    const node = tape[tape.length - 1];
    if (node && node.output === x) node.stage = name;
    x.name = name;
    return (stages[name] = x);
  }

  const picture = keep("pixel_values", new Tensor(pixels, [config.num_channels, ...config.image_size]));
  let x = embeddings(model, picture, knobs, (name, y) => keep(`embeddings.${name}`, y));
  for (let i = 0; i < config.num_hidden_layers; i++) {
    x = encoderLayer(model, x, i, knobs, (name, y) => keep(`layer.${i}.${name}`, y));
  }
  x = keep("last_hidden_state", layerNorm(x, ...model.layer("vit.layernorm"), config.layer_norm_eps));
  const logits = keep("logits", linear(firstToken(x), ...model.layer("classifier"))); // (K,)
  keep("loss", crossEntropy(logits, label ?? likeliest(logits.data)));
  return { stages, tape };
}

// [CLS, patch 1, ..., patch N] + positions: (C, H, W) -> (T, D).
function embeddings(model, picture, knobs, keep) {
  const D = model.config.hidden_size;
  const leaf = (name, shape) => new Tensor(model.parameters[`vit.embeddings.${name}`].data, shape);
  const rows = patches(picture, model.config.patch_size); // (N, C * P * Q)
  const projected = keep("patches", linear(rows, ...model.layer("vit.embeddings.patch_embeddings.projection")));
  const cls = keep("cls", leaf("cls_token", [1, D]));
  const positions = keep("positions", leaf("position_embeddings", [projected.shape[0] + 1, D]));
  const tokens = concatenate(unless(knobs.cls, cls), projected); // (T, D)
  return keep("output", add(tokens, unless(knobs.positions, positions)));
}

// One block, norm first: x + attention(norm(x)), then x + mlp(norm(x)). (T, D) -> (T, D).
function encoderLayer(model, x, i, knobs, keep) {
  const { layer_norm_eps: eps, hidden_act } = model.config;
  const layer = (name) => model.layer(`vit.encoder.layer.${i}.${name}`);
  let normed = keep("layernorm_before", layerNorm(x, ...layer("layernorm_before"), eps));
  const heads = joinHeads(attention(model, normed, i, knobs, keep));
  const mixed = keep("attention_output", linear(heads, ...layer("attention.output.dense")));
  x = keep("attention_sum", add(unless(knobs.residual, x), unless(knobs.attention[i], mixed)));
  normed = keep("layernorm_after", layerNorm(x, ...layer("layernorm_after"), eps));
  const wide = keep("mlp_pre_activation", linear(normed, ...layer("intermediate.dense"))); // (T, F)
  const active = keep("mlp_activation", ACTIVATIONS[hidden_act](wide));
  const narrow = keep("mlp_output", linear(active, ...layer("output.dense"))); // (T, D)
  return keep("output", add(unless(knobs.residual, x), unless(knobs.mlp[i], narrow)));
}

// h heads, each a softmax(q k^T / sqrt(d)) v of its own: (T, D) -> (h, T, d).
function attention(model, normed, i, knobs, keep) {
  const { num_attention_heads: h, hidden_size: D } = model.config;
  const layer = (name) => model.layer(`vit.encoder.layer.${i}.attention.attention.${name}`);
  const [q, k, v] = ["query", "key", "value"].map((name) => keep(name, splitHeads(linear(normed, ...layer(name)), h)));
  const scaled = scaleBy(scores(q, k), knobs.scale ? 1 / Math.sqrt(D / h) : 1);
  let p = keep("probabilities", softmax(keep("scores", scaled)));
  const mask = knobs.heads.subarray(i * h, (i + 1) * h);
  if (mask.includes(0)) p = headMask(p, mask);
  return keep("context", (knobs.published ? publishedContext : context)(p, v));
}
