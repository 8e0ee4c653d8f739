// The walk, from the pixels to the loss and back: for each step a title, the formula as in minivit/ops/, the shapes in
// the lessons' letters, two sentences, the lesson that derives it, the numbers, and the map that matters there. What
// depends on the picture, block, head or token that is looked at is a function of a Place (see walk.js).
//
// Letters: B batch (here always 1), C channels, H W pixels, P patch side, N patches, T = N + 1 tokens, D hidden size,
// h heads, d = D / h, F MLP size, K classes, L blocks; q and k index the tokens that ask and that are asked.

const FORWARD = [
  {
    title: "A picture is numbers",
    lesson: 1,
    formula: (p) =>
      p.live ? "x = (brightness - mean) / std, brightness 0 to 1" : "x = (brightness / 255 - mean) / std",
    shapes: ["x (B, C, H, W)"],
    words: (p) => [
      `To a computer a picture is a table of numbers, one for each pixel${p.config.C > 1 ? " and colour" : ": how bright it is"}.`,
      "They are shifted and scaled, so that they lie around 0.",
    ],
    numbers: (p) => (p.live ? [pixelTable(p, p.source.picture), pixelByHand(p)] : [pixelRows(p)]),
    map: (p) => ({ caption: `The picture, ${p.config.H} x ${p.config.W} pixels` }),
  },
  {
    title: "Cut into patches",
    lesson: 1,
    formula: "N = (H / P) * (W / P)",
    shapes: ["patches (B, N, C P P)"],
    words: (p) => [
      `The picture is cut into ${p.config.N} equal pieces, which are read row by row, like the words of a page.`,
      `Token ${p.patch} is the patch in row ${p.row}, column ${p.column}, counted from 0; it has C * P * P = ${sizeOf(p, "C P P")} numbers.`,
    ],
    numbers: (p) => [p.live ? pixelTable(p, cutOut(p, p.source.picture)) : pixelRows(p)],
    map: (p) => ({ caption: `The patch of token ${p.patch}, one of ${p.config.N}`, mark: [p.patch] }),
  },
  {
    title: "A patch becomes a token",
    lesson: 2,
    formula: "y = x @ weight^T + bias",
    shapes: ["x (B, N, C P P)", "weight (D, C P P)", "y (B, N, D)"],
    words: (p) => [
      `Each patch is multiplied by a learned table, the weight, and becomes ${p.config.D} numbers: its token.`,
      "The same table is used for every patch.",
    ],
    numbers: (p) => [
      ...firstOfToken(p),
      valueRows(p, [["token", p.source.stage("embeddings.patches", { token: p.patch })]], p.patch),
    ],
    map: (p) => ({ caption: `The patch of token ${p.patch}`, mark: [p.patch] }),
  },
  {
    title: "One token for the whole picture",
    parts: ["cls"],
    lesson: 3,
    formula: "tokens = [CLS, patch 0, ..., patch N - 1]",
    shapes: ["CLS (D)", "tokens (B, T, D)"],
    words: (p) => [
      "A token that belongs to no patch is put in front: CLS, learned numbers that are the same for every picture.",
      `It will gather the answer; with it there are T = N + 1 = ${p.config.T} tokens.`,
    ],
    numbers: (p) => [valueRows(p, [["CLS", p.source.stage("embeddings.cls", { token: 0 })]], 0)],
    map: () => ({ caption: "CLS stands for all of the picture" }),
  },
  {
    title: "Where the patch lies",
    parts: ["cls", "positions"],
    lesson: 4,
    formula: "x = tokens + positions",
    shapes: ["positions (T, D)", "x (B, T, D)"],
    words: () => [
      "To each token the model adds learned numbers for its place.",
      "Without them it could not tell the picture from the same patches shuffled.",
    ],
    numbers: (p) => [
      sumTable(
        `First numbers of ${tokenName(p.token)}`,
        [
          p.token
            ? ["token", p.source.stage("embeddings.patches", { token: p.token }).first]
            : p.along("CLS", "cls", p.source.stage("embeddings.cls", { token: 0 }).first),
          p.along("+ position", "positions", p.source.stage("embeddings.positions", { token: p.token }).first),
        ],
        "= x",
      ),
    ],
    map: placed,
  },
  {
    title: "Into the blocks",
    lesson: 7,
    formula: "x = block(x), L times",
    shapes: ["x (B, T, D)"],
    words: (p) => [
      p.config.L === 1
        ? "The tokens pass through one block."
        : `The tokens pass through ${p.config.L} blocks built alike, each with its own learned numbers.`,
      `We open block ${p.block}; blocks and heads are counted from 0.`,
    ],
    numbers: (p) => [
      valueRows(p, [[`before block ${p.block}`, p.before(p.block)]]),
      note("The keys [ and ] open another block, comma and full stop another head."),
    ],
    map: (p) => p.over(`Length of each token before block ${p.block}`, (token) => p.before(p.block, token).norm),
  },
  {
    title: "Layer norm",
    lesson: 6,
    formula: "y = (x - mean) / sqrt(var + eps) * weight + bias",
    shapes: ["x (B, T, D)", "weight, bias (D)", "y (B, T, D)"],
    words: () => [
      "Each token is brought to mean 0 and variance 1 (the mean of the squares), then scaled and shifted by learned numbers.",
      "So only the token's pattern matters, not how large its numbers are.",
    ],
    numbers: layerNormRows,
    map: placed,
  },
  {
    title: "Query, key and value",
    lesson: 5,
    formula: (p) => ["q", "k", "v"].map((x) => `${x} = y @ W${x}^T${p.qkvBias ? ` + b${x}` : ""}`).join(",  "),
    shapes: ["Wq, Wk, Wv (D, D)", "q, k, v (B, h, T, d)"],
    words: (p) => [
      "In each head a token says three things: what I look for (query), what I offer (key), what I hand over (value).",
      `The D = ${p.config.D} numbers of each are shared out among ${p.config.h} head${p.config.h === 1 ? "" : "s"}, d = ${p.config.d} for this one, head ${p.head}.`,
    ],
    numbers: (p) => [
      valueRows(p, [
        ["query", p.inBlock("query")],
        ["key", p.inBlock("key")],
        ["value", p.inBlock("value")],
      ]),
    ],
    map: placed,
  },
  {
    title: "Scores: does the offer fit?",
    parts: ["scale"],
    lesson: 5,
    formula: "s = q k^T / sqrt(d)",
    shapes: ["s (B, h, q, k)"],
    words: (p) => [
      `Query times key, number by number, added up: the larger this sum is beside those of other keys, the more ${tokenName(p.token)} will attend to ${tokenName(p.key)}.`,
      "Dividing by sqrt(d) keeps scores about as large in a big head as in a small one.",
    ],
    numbers: dotProduct,
    map: (p) => p.fromToken(`Scores: ${tokenName(p.token)} asks, head ${p.head}`, p.scores),
  },
  {
    title: "Softmax: scores become shares",
    lesson: 5,
    formula: "p = exp(s - max) / sum(exp(s - max))",
    shapes: ["p (B, h, q, k)"],
    words: () => [
      "Each score becomes a power of e, and each power is divided by the sum of them all.",
      "So the shares are positive and sum to 1.",
    ],
    numbers: (p) => softmaxByHand(p.order, p.scores, p.shares, tokenName, ["key", "s"]),
    map: (p) => p.fromToken(`Attention of ${tokenName(p.token)}, head ${p.head}`, p.shares),
  },
  {
    title: "Context: listening",
    parts: ["head", "published"],
    lesson: 5,
    formula: "y = p v",
    shapes: ["v (B, h, k, d)", "y (B, h, q, d)"],
    words: () => [
      "The token takes some of every token's value: as much as its share says.",
      "Attention is the only place where tokens hear of each other.",
    ],
    numbers: contextByHand,
    map: (p) => {
      const changed = p.isOff("head") || p.isOff("published");
      const caption = changed ? `Shares of ${tokenName(p.token)} before the switch` : `Whom ${tokenName(p.token)} listens to`;
      return p.fromToken(`${caption}, head ${p.head}`, p.shares);
    },
  },
  {
    title: "The heads, mixed",
    lesson: 5,
    formula: "y = [head 0, ..., head h - 1] @ weight^T + bias",
    shapes: ["weight (D, D)", "y (B, T, D)"],
    words: (p) => [
      `The contexts of all heads are put side by side: ${p.config.h} * ${p.config.d} = ${p.config.D} numbers again.`,
      "A learned table, the output matrix, mixes them.",
    ],
    numbers: (p) => [
      valueRows(p, [
        [`context, head ${p.head}`, p.inBlock("context")],
        ["mixed", p.inBlock("attention_output")],
      ]),
    ],
    map: placed,
  },
  {
    title: "Added, not replaced",
    parts: ["residual", "attention"],
    lesson: 6,
    formula: "x + attention(layer_norm(x))",
    shapes: ["x (B, T, D)"],
    words: () => [
      "What attention found is added to the token as it was before the norm.",
      "This road around attention is called residual: along it the token keeps what it had.",
    ],
    numbers: (p) => [
      sumTable(
        `First numbers of ${tokenName(p.token)}`,
        [
          p.along("x", "residual", p.before(p.block).first),
          p.along("+ attention", "attention", p.inBlock("attention_output").first),
        ],
        "= sum",
      ),
    ],
    map: (p) =>
      p.over(`Length of what attention ${p.isOff("attention") ? "would add" : "adds"} to each patch`, (token) =>
        p.inBlock("attention_output", token).norm,
      ),
  },
  {
    title: "Layer norm, then wider",
    lesson: 6,
    formula: "m = layer_norm(x),  u = m @ W1^T + b1",
    shapes: ["m (B, T, D)", "W1 (F, D)", "u (B, T, F)"],
    words: (p) => [
      "Now each token is worked on by itself, in a small network called MLP.",
      `Its first table makes F = ${p.config.F} numbers out of D = ${p.config.D}.`,
    ],
    numbers: (p) => [
      valueRows(p, [
        ["m", p.inBlock("layernorm_after")],
        ["u", p.inBlock("mlp_pre_activation")],
      ]),
    ],
    map: placed,
  },
  {
    title: "A bend",
    lesson: 6,
    formula: (p) => bendOf(p).formula,
    shapes: ["a (B, T, F)"],
    words: (p) => [
      bendOf(p).words,
      "Without a bend between them, two tables in a row would equal one single table.",
    ],
    numbers: bendByHand,
    map: placed,
  },
  {
    title: "Narrow again, and added",
    parts: ["residual", "mlp"],
    lesson: 6,
    formula: "x + a @ W2^T + b2",
    shapes: ["W2 (D, F)", "x (B, T, D)"],
    words: (p) => [
      `A second table makes D = ${p.config.D} numbers out of F = ${p.config.F}, and they too are added to the token.`,
      `That was block ${p.block}.`,
    ],
    numbers: (p) => [
      sumTable(
        `First numbers of ${tokenName(p.token)}`,
        [
          p.along("x", "residual", p.inBlock("attention_sum").first),
          p.along("+ MLP", "mlp", p.inBlock("mlp_output").first),
        ],
        "= output",
      ),
    ],
    map: (p) =>
      p.over(`Length of what the MLP ${p.isOff("mlp") ? "would add" : "adds"} to each patch`, (token) =>
        p.inBlock("mlp_output", token).norm,
      ),
  },
  {
    title: "All the blocks",
    parts: ["residual"],
    lesson: 7,
    formula: "x = x + attention(layer_norm(x)),  x = x + mlp(layer_norm(x))",
    shapes: ["x (B, T, D)"],
    words: (p) => [
      "Every block does the same, with learned numbers of its own.",
      `The list says how far each of them moved ${tokenName(p.token)}, as a share of its length before.`,
    ],
    numbers: journey,
    map: (p) =>
      p.over("How far all blocks together moved each patch", (token) =>
        distance(p.hidden(0, token), p.hidden(p.config.L, token)),
      ),
  },
  {
    title: "Only CLS goes on",
    parts: ["published"],
    lesson: 3,
    formula: "y = layer_norm(x)[CLS]",
    shapes: ["x (B, T, D)", "y (B, D)"],
    words: () => [
      "One last layer norm, and then only CLS is read.",
      "The patches have told it what they know, by attention.",
    ],
    numbers: (p) => [
      valueRows(
        p,
        [
          ["x", p.before(p.config.L, 0)],
          ["y", p.source.stage("last_hidden_state", { token: 0 })],
        ],
        0,
      ),
    ],
    map: (p) =>
      p.fromToken("Attention of CLS in the last block, mean of the heads", p.source.clsRow(p.config.L - 1), []),
  },
  {
    title: "Logits",
    lesson: (p) => (p.compares ? 13 : 7),
    formula: (p) => (p.compares ? "logits = 3 * cosine(y - mean, photo - mean)" : "logits = y @ weight^T + bias"),
    shapes: ["y (B, D)", "logits (B, K)"],
    words: (p) => [
      p.compares
        ? `This model knows no classes, so its CLS is compared with that of ${p.config.K} known photos, each a smaller copy: 3 times the cosine, a factor that this page chose, and so 3 at most.`
        : `A last table makes K = ${p.config.K} numbers out of CLS, one for each answer: the logits.`,
      `The largest is what the model says: "${p.source.answers[largest(p.source.logits())]}".`,
    ],
    numbers: (p) => [
      answers(p),
      ...(p.compares ? [note("The mean is that of the known photos. A known photo against itself is not quite 3: its copy has fewer pixels.")] : []),
    ],
    map: plain,
  },
  {
    title: "Probabilities",
    lesson: 9,
    formula: (p) =>
      p.chances === "sigmoid" ? "p = 1 / (1 + exp(-logits))" : "p = exp(logits - max) / sum(exp(logits - max))",
    shapes: ["p (B, K)"],
    words: (p) => [
      p.chances === "sigmoid"
        ? "Each logit by itself becomes a number from 0 to 1, for several answers may be right."
        : "Softmax again: the logits become shares that sum to 1.",
      p.compares
        ? "The factor 3 decides how far apart they lie, so they do not say how sure the model is."
        : "They say how sure the model is, not whether it is right.",
    ],
    numbers: (p) =>
      p.chances === "softmax"
        ? softmaxByHand(byLogit(p), p.source.logits(), p.source.probabilities(), p.answer, ["answer", "logit"])
        : [chances(p)],
    map: plain,
  },
  {
    title: (p) => (p.live ? "The loss" : "One number to ask about"),
    lesson: (p) => (p.live ? 9 : 11),
    formula: (p) => (p.live ? "loss = -log p[label]" : "logits[answer]"),
    shapes: [],
    words: (p) =>
      p.live
        ? [
            p.source.guessed
              ? "Nobody has said what is right, so the model's own answer counts; the loss says how sure it is not."
              : "The label says what is right; the loss says how surprised the model is by it.",
            "It is 0 when the right answer has probability 1, and grows without end as that goes to 0.",
          ]
        : [
            "The photo has no label, so we ask about the answer that the model gave, by its logit.",
            "On the way back we learn what raises it.",
          ],
    numbers: (p) => [lossByHand(p)],
    map: plain,
  },
];

const BACKWARD = [
  {
    title: "Turning round: the first gradient",
    lesson: (p) => (p.live ? 9 : 8),
    formula: (p) => (p.live ? "dlogits = p - y, y = 1 at the label, else 0" : "dlogits = 1 at the answer, else 0"),
    shapes: ["dlogits (B, K)"],
    words: (p) => [
      `A gradient says how much ${p.goal} grows when a number grows a little; its name starts with d.`,
      p.live
        ? "Raising the right logit lowers the loss, so its gradient is below 0; the others are above."
        : "For that logit itself the gradient is 1, and the other logits do not count.",
    ],
    numbers: (p) => [firstGradient(p)],
    map: plain,
  },
  {
    title: "Back into CLS alone",
    lesson: 3,
    formula: (p) =>
      p.compares
        ? "dy = the cosine's backward, then layer norm's"
        : "dy = dlogits @ weight, then layer norm's backward",
    shapes: ["dy (B, D)", "dx (B, T, D)"],
    words: (p) => [
      `The logits were made from CLS, so each of its numbers gets a gradient: how much it moves ${p.goal}.`,
      "The patches get 0, for after the last block nobody reads them.",
    ],
    numbers: (p) => [
      gradientRows("Gradients", [
        ["CLS, after the norm", p.source.stage("last_hidden_state", { token: 0 })],
        ["CLS, before the norm", p.before(p.config.L, 0)],
        [`token ${p.patch}, before the norm`, p.before(p.config.L, p.patch)],
      ]),
    ],
    map: (p) =>
      p.over("Length of the gradient at each patch, after the last block", (token) =>
        p.gradientLength(p.config.L, token),
      ),
  },
  {
    title: "Back through the later blocks",
    parts: ["residual"],
    lesson: 6,
    formula: "y = x + f(x):  dx = dy + (dy through f)",
    shapes: ["dx (B, T, D)"],
    words: () => [
      "A plus hands its gradient to both roads; where the token was used twice, its two gradients are added.",
      "So the residual road lets the gradient pass unchanged, and attention spreads it from CLS to the patches.",
    ],
    numbers: (p) => [
      gradientJourney(p, p.config.L, p.block + 1),
      ...(p.block === p.config.L - 1 ? [note(`Block ${p.block} is the last: there is none after it.`)] : []),
    ],
    map: (p) =>
      p.over(`Length of the gradient at each patch, after block ${p.block}`, (token) =>
        p.gradientLength(p.block + 1, token),
      ),
  },
  {
    title: "The MLP, backwards",
    parts: ["mlp"],
    lesson: 6,
    formula: (p) => `da = dy @ W2,  ${bendOf(p).backward},  dm = du @ W1${bendOf(p).where ?? ""}`,
    shapes: ["dy, dm (B, T, D)", "da, du (B, T, F)"],
    words: () => [
      "The steps are undone in reverse: the second table, then the bend, then the first table.",
      "At the bend each gradient is multiplied by the slope of the curve there.",
    ],
    numbers: (p) => [
      ...p.silent("mlp_output"),
      gradientRows(`Gradients of ${tokenName(p.token)}`, [
        ["dy", p.inBlock("mlp_output")],
        ["da", p.inBlock("mlp_activation")],
        ["du", p.inBlock("mlp_pre_activation")],
      ]),
      ...slopeByHand(p),
    ],
    map: (p) => p.gradients("Length of du, the gradient in the MLP, at each patch", "mlp_pre_activation"),
  },
  {
    title: "Layer norm, backwards",
    parts: ["residual", "mlp"],
    lesson: 6,
    formula: "dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(var + eps),  dn = dm * weight",
    shapes: ["dm, dx (B, T, D)"],
    words: () => [
      "Mean and variance were made from the token, so part of its gradient comes back through them.",
      "Then it is added to what came along the residual road.",
    ],
    numbers: (p) => [
      ...p.silent("attention_sum"),
      gradientRows(`Gradients of ${tokenName(p.token)}`, [["dm, after the norm", p.inBlock("layernorm_after")]]),
      roadsMeet(p, p.inBlock("attention_sum"), p.inBlock("output")),
    ],
    map: (p) => p.gradients("Length of the gradient between attention and MLP", "attention_sum"),
  },
  {
    title: "Context, backwards",
    parts: ["head", "published"],
    lesson: 5,
    formula: "dv = p^T dy,  dp = dy v^T",
    shapes: ["dy, dv (B, h, T, d)", "dp (B, h, q, k)"],
    words: () => [
      "A value gets the gradients of all who listened to it, each times its share.",
      "A share gets the gradient of the context times the value that it let in.",
    ],
    numbers: (p) => [
      ...p.silent("context"),
      gradientRows(`Gradients of ${tokenName(p.token)}, head ${p.head}`, [
        ["dy, of its context", p.inBlock("context")],
        ["dv, of its value", p.inBlock("value")],
      ]),
    ],
    map: (p) => p.gradients(`Length of dv at each patch, head ${p.head}`, "value"),
  },
  {
    title: "Softmax, backwards",
    parts: ["head", "published"],
    lesson: 5,
    formula: "ds = p * (dp - sum(dp * p))",
    shapes: ["ds (B, h, q, k)"],
    words: (p) => [
      `dp says what a larger share would do to ${p.goal}; for each key: take its dp, subtract the average dp, multiply by its share.`,
      "Where one share is nearly 1 and the others nearly 0, almost nothing comes through.",
    ],
    numbers: (p) => [...p.silent("context"), ...softmaxBackwardByHand(p)],
    map: (p) =>
      p.live
        ? p.fromToken(`ds: ${tokenName(p.token)} asks, head ${p.head}`, Float64Array.from(p.inBlock("scores").gradient))
        : p.fromToken(`Attention p of ${tokenName(p.token)}, head ${p.head}`, p.shares),
  },
  {
    title: "To query and key",
    parts: ["scale"],
    lesson: 5,
    formula: "dq = ds k / sqrt(d),  dk = ds^T q / sqrt(d)",
    shapes: ["dq, dk (B, h, T, d)"],
    words: () => [
      "A score is a product, so each factor's gradient is the other factor, times ds.",
      "The query hears back from all keys, the key from all queries.",
    ],
    numbers: (p) => [
      ...p.silent("query"),
      gradientRows(`Gradients of ${tokenName(p.token)}, head ${p.head}`, [
        ["dq", p.inBlock("query")],
        ["dk", p.inBlock("key")],
        ["dv", p.inBlock("value")],
      ]),
    ],
    map: (p) => p.gradients(`Length of dk at each patch, head ${p.head}`, "key"),
  },
  {
    title: "Three roads meet",
    parts: ["residual"],
    lesson: 5,
    formula: "dy = dq @ Wq + dk @ Wk + dv @ Wv, then layer norm's backward",
    shapes: ["dy, dx (B, T, D)"],
    words: () => [
      "Query, key and value of all heads were made from one token: their gradients are added up.",
      "They go back through the norm, and are added to what came along the residual road.",
    ],
    numbers: (p) => [
      ...p.silent("layernorm_before"),
      gradientRows(`Gradients of ${tokenName(p.token)}`, [["dy, after the norm", p.inBlock("layernorm_before")]]),
      roadsMeet(p, p.before(p.block), p.inBlock("attention_sum")),
    ],
    map: (p) =>
      p.over(`Length of the gradient at each patch, before block ${p.block}`, (token) =>
        p.gradientLength(p.block, token),
      ),
  },
  {
    title: "Down to the embedding",
    parts: ["positions"],
    lesson: 8,
    formula: (p) => `x = tokens + positions:  dtokens = dx,  dpositions = ${p.isOff("positions") ? "0" : "dx"}`,
    shapes: ["dx (B, T, D)"],
    words: () => [
      "The earlier blocks do the same, in reverse order, down to the sum of token and position.",
      "A plus gives both roads the same gradient: what a patch shows and where it lies.",
    ],
    numbers: (p) => [
      gradientJourney(p, p.block, 0),
      gradientRows(`Gradient of ${tokenName(p.token)}`, [["dx", p.before(0)]]),
    ],
    map: (p) => p.over("Length of the gradient at each patch, before block 0", (token) => p.gradientLength(0, token)),
  },
  {
    title: "Back to the pixels",
    lesson: 2,
    formula: "dx = dy @ weight, each number put back where it was cut",
    shapes: ["dy (B, N, D)", "dx (B, C, H, W)"],
    words: (p) => [
      `Each pixel now has its gradient: how much ${p.goal} moves when this pixel alone moves a little.`,
      "A nudge up and down, with two forward passes, would find almost the same number.",
    ],
    numbers: (p) => [pixelGradients(p)],
    map: (p) => pixelsGradient(p, [p.patch]),
  },
  {
    title: "And the tables?",
    lesson: 9,
    formula: "dweight = dy^T @ x,  weight = weight - rate * dweight",
    shapes: ["dweight, of the patch embedding (D, C P P)"],
    words: () => [
      "On the same way back every learned matrix gets its gradient: what arrived, times what it had read.",
      "In training each of its numbers is changed a little so that the loss falls; then the next pictures follow.",
    ],
    numbers: (p) => tableGradients(p),
    map: (p) => pixelsGradient(p, []),
  },
];

const WALK = [...FORWARD, ...BACKWARD];
const INTO_BLOCKS = FORWARD.find(({ title }) => title === "Into the blocks");

// Maps that several steps show: the selected token's place, the picture alone, the gradient at the pixels.
function placed(p) {
  const caption = p.token
    ? `Patch ${p.token}: row ${p.row}, column ${p.column}, counted from 0`
    : "CLS has no place in the picture";
  return { caption, mark: [p.token] };
}

function plain() {
  return { caption: "The picture" };
}

function pixelsGradient(p, mark) {
  const caption = p.live ? "Gradient of the pixels" : "Size of the gradient at the pixels, all colours together";
  return { caption, pixels: p.source.pixelGradient(), mark };
}
