// What can lie over the photo: each view's name, its lesson, which of layer and head it depends on, and its numbers.
//
// A view's sentence is text, or a function of the source. Its `map(source, state)` returns null where the page has no such numbers, or
// {values (N,) or finer, rows, columns, cls: CLS's own value or null, signed: diverging colours around 0, unit,
//  colours: (N, 3) bytes instead of values' colours or null}.

const VIEWS = {
  photo: {
    title: "picture alone",
    lesson: 1,
    sentence: "The picture as the model gets it, cut into patches. Each patch becomes one token.",
    map: () => null,
  },
  attention: {
    title: "what q attends to",
    lesson: 5,
    layer: true,
    head: true,
    sentence: "How much q takes from each patch k, in one head. All shares, CLS's too, sum to 1.",
    map: (source, { layer, head, patch }) =>
      overPatches(source, rowOf(source.attention(layer, head), source.config.T, patch), "attention"),
  },
  attended: {
    title: "what attends to q",
    lesson: 5,
    layer: true,
    head: true,
    sentence: "How much each patch takes from q: a column of attention. Columns need not sum to 1.",
    map: (source, { layer, head, patch }) =>
      overPatches(source, columnOf(source.attention(layer, head), source.config.T, patch), "attention"),
  },
  mean: {
    title: "attention, mean of heads",
    lesson: 5,
    layer: true,
    sentence: "What q takes from each patch, all heads of the layer together.",
    // of a photo CLS's row is known without a head, too; of a drawing all rows are
    map: (source, { layer, patch }) =>
      overPatches(source, patch === 0 ? source.clsRow(layer) : meanRow(source, layer, patch), "attention"),
  },
  rollout: {
    title: "rollout of attention",
    lesson: 11,
    layer: true,
    sentence: "Mean attention multiplied from this layer down, half of each token kept: an estimate of what reached q.",
    map: (source, { layer, patch }) => overPatches(source, rollout(source, layer, patch), "share"),
  },
  similarity: {
    title: "similarity to q",
    lesson: 13,
    layer: true,
    tokens: true,
    sentence: "Cosine between q's token and each other: 1 for the same direction, 0 for unrelated, −1 for the opposite.",
    map: (source, { layer, patch }) =>
      overPatches(source, similarity(source.tokens(layer + 1), source.config.D, patch), "cosine"),
  },
  components: {
    title: "principal components",
    lesson: 13,
    layer: true,
    tokens: true,
    sentence: "The three axes along which the patches' tokens differ most, as red, green and blue.",
    map: componentsMap,
  },
  norms: {
    title: "length of tokens",
    lesson: 6,
    layer: true,
    tokens: true,
    sentence: "The norm of each token on the residual road, after this layer.",
    map: (source, { layer }) => overPatches(source, norms(source.tokens(layer + 1), source.config.D), "norm"),
  },
  occlusion: {
    title: "occlusion",
    lesson: 11,
    sentence: ({ kind, answers, label }) => {
      const grey = kind === "live" ? "grey (black ones light up)" : "grey";
      return `How far the logit of "${answers[label]}" falls when only this patch is painted ${grey}: above 0, it spoke for it.`;
    },
    map: (source) => {
      const falls = source.occlusion();
      return falls && { ...grid(source), values: falls, cls: null, signed: true, unit: "fall of the logit" };
    },
  },
  gradient: {
    title: "gradient at pixels",
    lesson: 8,
    sentence: ({ kind }) =>
      kind === "live"
        ? "How much the loss grows with each pixel: orange ones raise it, blue ones lower it."
        : "How much the answer's logit changes with each pixel, up or down, all colours together.",
    map: (source) => {
      const found = source.pixelGradient();
      if (!found) return null;
      const [rows, columns] = found.shape;
      return { rows, columns, values: found.data, cls: null, signed: found.data.some((x) => x < 0), unit: "gradient" };
    },
  },
};

function grid(source) {
  const [rows, columns] = source.config.grid;
  return { rows, columns };
}

// A map of a number for each token: the patches' over the photo, CLS's beside it.
function overPatches(source, perToken, unit) {
  return { ...grid(source), values: perToken.subarray(1), cls: perToken[0], signed: false, unit };
}

const componentsOf = new WeakMap(); // by the array of tokens: a source gives the same one until its numbers change

function componentsMap(source, { layer }) {
  const tokens = source.tokens(layer + 1);
  if (!componentsOf.has(tokens)) componentsOf.set(tokens, principalComponents(tokens, source.config.D));
  const { coordinates, shares } = componentsOf.get(tokens);
  return { ...grid(source), values: null, coordinates, shares, colours: asColours(coordinates), cls: null, unit: "colour" };
}

// Each component from 0 to 255 over the patches, but for the hundredth at either end, as plots.token_colours has it.
function asColours(coordinates) {
  const colours = new Uint8ClampedArray(coordinates.length);
  for (let axis = 0; axis < 3; axis++) {
    const along = coordinates.filter((_, j) => j % 3 === axis);
    const low = quantile(along, 0.01);
    const width = Math.max(quantile(along, 0.99) - low, 1e-12);
    along.forEach((x, n) => (colours[n * 3 + axis] = (255 * (x - low)) / width));
  }
  return colours;
}

// The ends of a map's scale: from the least to the largest value, or as far below 0 as above it.
function ends({ values, signed }) {
  let low = Infinity;
  let high = -Infinity;
  for (const x of values) {
    if (x < low) low = x;
    if (x > high) high = x;
  }
  if (!signed) return [low, high];
  const far = Math.max(-low, high) || 1;
  return [-far, far];
}

// The value that a map has at token t: of a finer map the sum over the patch's pixels, null for CLS where it has none.
function valueAt(map, source, t) {
  if (!map || !map.values) return null;
  if (t === 0) return map.cls;
  const [rows, columns] = source.config.grid;
  const [tall, wide] = [map.rows / rows, map.columns / columns];
  const [top, left] = [Math.floor((t - 1) / columns) * tall, ((t - 1) % columns) * wide];
  let sum = 0;
  for (let y = top; y < top + tall; y++) for (let x = left; x < left + wide; x++) sum += map.values[y * map.columns + x];
  return sum;
}
