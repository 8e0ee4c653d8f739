// What is being looked at, and its link: state <-> "#view=attention&layer=3&head=2&patch=90".

// What opens a lesson's matter; a lesson with `walk` opens the walk at its first step.
const LESSONS = {
  1: { view: "photo" },
  2: { walk: true },
  3: { view: "mean", patch: 0 },
  4: { walk: true },
  5: { view: "attention" },
  6: { view: "norms" },
  7: { walk: true },
  8: { view: "gradient", mode: "tape" }, // a photo page has no tape, and shows the view
  9: { view: "occlusion" },
  10: { view: "similarity" },
  11: { view: "rollout", patch: 0 },
  12: { view: "attention", switched: "published" }, // which a photo page has no switch for
  13: { view: "components" },
  14: { view: "gradient" },
};

const MODES = ["look", "walk", "tape"];

// What a page opens with, and what is left out of links: the middle patch, in the last layer. On a live page the map
// covers its few pixels, so that one number has one colour; the drawing stands beside it.
function defaults({ kind, label, config: { L, grid: [rows, columns] } }) {
  const patch = 1 + Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const place = { photo: 0, view: "attention", layer: L - 1, head: 0, patch, key: null };
  const rest = { mode: "look", step: 0, twin: false, knocked: "", opacity: kind === "live" ? 100 : 70, letters: true };
  return { ...place, ...rest, ...(kind === "live" ? { drawing: "digit0", label, switched: "" } : {}) };
}

// "#lesson=5&layer=3" -> {view: "attention", layer: 3}; what is not understood is left out.
function readHash(hash, walk) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const lesson = LESSONS[Number(given.get("lesson"))];
  const changes = lesson ? ofLesson(Number(given.get("lesson")), lesson, walk) : {};
  for (const name of ["photo", "layer", "head", "patch", "key", "step", "opacity", "label"]) {
    const value = given.get(name);
    if (value !== null && /^-?\d{1,9}$/.test(value)) changes[name] = Number(value);
  }
  if (Object.hasOwn(VIEWS, given.get("view"))) changes.view = given.get("view");
  if (MODES.includes(given.get("mode"))) changes.mode = given.get("mode");
  for (const name of ["twin", "letters"]) if (given.has(name)) changes[name] = given.get(name) === "1";
  for (const name of ["knocked", "drawing", "switched"]) if (given.has(name)) changes[name] = given.get(name);
  return changes;
}

function ofLesson(number, { walk: opensWalk, ...changes }, walk) {
  if (!opensWalk) return { mode: "look", ...changes };
  const step = walk.steps.findIndex((one) => Number(one.lesson) === number);
  return { mode: "walk", step: Math.max(step, 0) };
}

function writeHash(state, usual) {
  const parts = Object.keys(usual)
    .filter((name) => state[name] !== usual[name] || (name === "layer" && state.mode === "walk")) // its own
    .map((name) => `${name}=${typeof state[name] === "boolean" ? Number(state[name]) : state[name]}`);
  return parts.length ? `#${parts.join("&")}` : "#";
}

// The nearest state that there is: every number within its range, heads that exist, the tape only where there is one.
function tidy(state, source, photos, steps) {
  const { config, can } = source;
  const mode = state.mode === "tape" && !can.tape ? "look" : state.mode;
  const embeddings = mode === "look" && VIEWS[state.view].tokens ? -1 : 0; // these views show the tokens before layer 0, too
  return {
    ...state,
    mode,
    photo: clamp(state.photo, 0, Math.max(photos - 1, 0)),
    layer: clamp(state.layer, embeddings, config.L - 1),
    head: clamp(state.head, 0, config.h - 1),
    patch: clamp(state.patch, 0, config.N),
    key: state.key === null ? null : clamp(state.key, 0, config.N),
    step: clamp(state.step, 0, Math.max(steps - 1, 0)),
    opacity: clamp(state.opacity, 0, 100),
    twin: state.twin && can.twin,
    knocked: tidyKnocked(state.knocked, config, can),
    ...(source.kind === "live" ? tidyDrawn(state, source) : {}),
  };
}

// A drawing that there can be, its label (-1: the model's own answer), and the switches that there are.
function tidyDrawn({ drawing, label, switched }, { config: { H, W, K }, digits, model }) {
  const [, digit] = drawing.match(/^digit(\d{1,6})$/) ?? [];
  const drawn = drawing.length === H * W && /^[0-9a-g]+$/.test(drawing);
  const known = switchNames(model.config).filter((name) => switched.split(",").includes(name));
  return {
    drawing: drawn ? drawing : `digit${clamp(Number(digit ?? 0), 0, digits.count - 1)}`,
    label: clamp(label, -1, K - 1),
    switched: known.join(","),
  };
}

// "3.2,1.0" without what is in it, or with what is not.
function toggled(names, name) {
  const rest = names.split(",").filter((other) => other && other !== name);
  return (names.split(",").includes(name) ? rest : [...rest, name]).join(",");
}

// "3.2,1.0" with the heads that exist, in order; where one at a time was recorded, the last one.
function tidyKnocked(knocked, { L, h }, { knock }) {
  const known = knocked.split(",").filter((name) => {
    const [layer, head] = name.split(".").map(Number);
    return /^\d{1,3}\.\d{1,3}$/.test(name) && layer < L && head < h;
  });
  const heads = [...new Set(known)];
  return (knock === "all" ? heads.sort() : heads.slice(-1)).join(",");
}

function clamp(x, low, high) {
  return Math.min(Math.max(Math.round(Number.isFinite(x) ? x : low), low), high);
}
