// What follows from a source's numbers: rows and columns of attention, rollout, similarity, principal components.
// T tokens, CLS first, N = T - 1 patches, D hidden size; all arrays are flat and row-major.

function rowOf(matrix, T, q) {
  return matrix.slice(q * T, (q + 1) * T);
}

// The other patch that token q attends to most, of its row of attention; patch 1 where there is no other.
function otherPatch(row, q) {
  let most = q === 1 && row.length > 2 ? 2 : 1;
  for (let k = 1; k < row.length; k++) if (k !== q && row[k] > row[most]) most = k;
  return most;
}

function columnOf(matrix, T, k) {
  return Float64Array.from({ length: T }, (_, q) => matrix[q * T + k]);
}

// The heads of layer i that are in. Of a photo attention was recorded with all of them.
function headsIn(source, i) {
  const heads = [...Array(source.config.h).keys()];
  return source.kind === "live" ? heads.filter((head) => !source.knocked.has(`${i}.${head}`)) : heads;
}

// The mean over the heads that are in, over all where none is, of what token q attends to in layer i: (T,).
function meanRow(source, i, q) {
  const { T, h } = source.config;
  const heads = headsIn(source, i);
  const left = heads.length ? heads : [...Array(h).keys()];
  const mean = new Float64Array(T);
  for (const head of left) {
    const attention = source.attention(i, head);
    for (let k = 0; k < T; k++) mean[k] += attention[q * T + k] / left.length;
  }
  return mean;
}

// How much of each input token has arrived in token q after layer i: row q of M_i ... M_1 M_0 with
// M = (1 + attention) / 2, the attention a mean over heads. Only this row is followed, from the top down: T^2 a layer.
// Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
function rollout(source, i, q) {
  const { T, h } = source.config;
  let row = new Float64Array(T);
  row[q] = 1;
  for (let layer = i; layer >= 0; layer--) {
    const below = row.map((share) => share / 2);
    for (const head of headsIn(source, layer)) {
      const attention = source.attention(layer, head);
      for (let t = 0; t < T; t++) {
        const share = row[t] / (2 * h);
        for (let k = 0; k < T; k++) below[k] += share * attention[t * T + k];
      }
    }
    const sum = below.reduce((a, b) => a + b);
    row = below.map((share) => share / sum); // a head that is out adds 0
  }
  return row;
}

function norms(tokens, D) {
  return Float64Array.from({ length: tokens.length / D }, (_, t) => norm(tokens.subarray(t * D, (t + 1) * D)));
}

function norm(vector) {
  return Math.sqrt(dot(vector, vector));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// Cosine of each token with token q: (T,).
function similarity(tokens, D, q) {
  const lengths = norms(tokens, D);
  const one = tokens.subarray(q * D, (q + 1) * D);
  return lengths.map((length, t) => dot(one, tokens.subarray(t * D, (t + 1) * D)) / Math.max(length * lengths[q], 1e-12));
}

// The patches' tokens (N, D) on the three axes along which they differ most: {coordinates (N, 3), shares (3,)}.
// An axis is X^T u for an eigenvector u of the Gram matrix X X^T (N, N), N being the smaller side; u is found by power
// iteration, each one orthogonal to those before. As in lens.py the largest of an axis's D numbers is positive.
// Source: Pearson 1901; for tokens as colours Oquab et al. 2023, "DINOv2", figure 1.
function principalComponents(tokens, D) {
  const X = centred(tokens.subarray(D), D); // without CLS, which is like no patch
  const N = X.length / D;
  const gram = gramMatrix(X, N, D);
  let variance = 0;
  for (let n = 0; n < N; n++) variance += gram[n * N + n];
  const found = [];
  const coordinates = new Float64Array(N * 3);
  const shares = new Float64Array(3);
  for (let axis = 0; axis < Math.min(3, N, D); axis++) {
    const { u, value } = eigenvector(gram, N, found);
    found.push(u);
    const length = Math.sqrt(Math.max(value, 0)) * signOfAxis(X, u, D);
    for (let n = 0; n < N; n++) coordinates[n * 3 + axis] = u[n] * length;
    shares[axis] = value / Math.max(variance, Number.MIN_VALUE);
  }
  return { coordinates, shares };
}

function centred(rows, D) {
  const N = rows.length / D;
  const mean = new Float64Array(D);
  for (let j = 0; j < rows.length; j++) mean[j % D] += rows[j] / N;
  return Float64Array.from(rows, (x, j) => x - mean[j % D]);
}

function gramMatrix(X, N, D) {
  const gram = new Float64Array(N * N);
  for (let a = 0; a < N; a++) {
    const row = X.subarray(a * D, (a + 1) * D);
    for (let b = 0; b <= a; b++) gram[a * N + b] = gram[b * N + a] = dot(row, X.subarray(b * D, (b + 1) * D));
  }
  return gram;
}

function eigenvector(gram, N, before) {
  let u = Float64Array.from({ length: N }, (_, n) => Math.sin(n + 1)); // fixed, and orthogonal to nothing in particular
  let value = 0;
  for (let step = 0; step < 500; step++) {
    const next = Float64Array.from({ length: N }, (_, n) => dot(gram.subarray(n * N, (n + 1) * N), u));
    for (const other of before) {
      const along = dot(other, next);
      for (let n = 0; n < N; n++) next[n] -= along * other[n];
    }
    value = norm(next);
    if (value === 0) return { u: next, value };
    for (let n = 0; n < N; n++) next[n] /= value;
    const turned = 1 - Math.abs(dot(u, next));
    u = next;
    if (step > 0 && turned < 1e-12) break;
  }
  return { u, value };
}

function signOfAxis(X, u, D) {
  const axis = new Float64Array(D);
  u.forEach((weight, n) => {
    for (let j = 0; j < D; j++) axis[j] += weight * X[n * D + j];
  });
  return axis.reduce((most, x) => (Math.abs(x) > Math.abs(most) ? x : most), 0) < 0 ? -1 : 1;
}

// The value below which a share p of the numbers lies, interpolated as NumPy's quantile does.
function quantile(numbers, p) {
  const sorted = Float64Array.from(numbers).sort();
  const at = p * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}
