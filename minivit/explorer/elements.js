// Small helpers for all panels: elements of the page, numbers and names as text.

function byId(id) {
  return document.getElementById(id);
}

// An element with attributes and children; text only ever goes in as text.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== "" && child !== undefined && child !== null));
  return node;
}

// Four digits that count, as one writes them on a board.
function format(x) {
  const size = Math.abs(x);
  if (x === 0 || !Number.isFinite(x)) return String(x);
  return minus(size >= 1e-4 && size < 1e5 ? x.toPrecision(size < 1e4 ? 4 : 5) : x.toExponential(3));
}

// Three digits that count, at most seven characters: for rows of numbers.
function brief(x) {
  const size = Math.abs(x);
  if (x === 0) return "0";
  if (size >= 1e-3 && size < 1e4) return minus(size < 0.1 ? x.toFixed(4) : size < 1000 ? x.toPrecision(3) : x.toFixed(0));
  return minus(x.toExponential(size < 1e-9 ? 0 : 1));
}

function minus(text) {
  return text.replaceAll("-", "−").replace("e+", "e");
}

// A name of 300 characters would push all else aside.
function shortened(text, most = 26) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function tokenName(token) {
  return token === 0 ? "CLS" : `token ${token}`;
}

function layerName(layer) {
  return layer < 0 ? "before layer 0 (embeddings)" : `layer ${layer}`;
}

function headName(layer, head) {
  return `layer ${layer}, head ${head}`;
}

// A name with underscores and dots, which may break behind them.
function breakable(name) {
  return name.split(/(?<=[._])/).flatMap((part, n) => (n ? [element("wbr"), part] : [part]));
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

function numberOrNull(text) {
  return text.trim() === "" ? null : Number(text);
}
