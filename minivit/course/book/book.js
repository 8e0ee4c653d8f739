// What scrolls can be scrolled by keys, and says its name; the navigation's captions have a level.
const regions = () => {
  for (const region of document.querySelectorAll("article pre, article .table-wrapper")) {
    if (region.scrollWidth <= region.clientWidth) continue;
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", region.matches("pre") ? "code or output" : "table");
  }
};

// Predict, then run: what a lesson prints and draws, or a teacher's page answers, waits behind buttons, one for each.
// Without this file, and in print, all of it is seen.
const OUTPUT = "div.highlight-text, figure";

// The runs of elements that are hidden together.
const outputs = () => {
  const first = [...document.querySelectorAll(OUTPUT)].filter((one) => !one.previousElementSibling?.matches(OUTPUT));
  return first.map((one) => [one, ...until(one, (next) => !next.matches(OUTPUT))]);
};
const answers = () => {
  const right = [...document.querySelectorAll("article p")].filter((one) => one.textContent.startsWith("Right:"));
  const part = document.querySelector("#answers > h2");
  return [...right.map((one) => [one, ...until(one)]), ...(right.length && part ? [until(part)] : [])];
};
const until = (one, ends = () => false) => {
  const next = one.nextElementSibling;
  return !next || next.matches("section") || ends(next) ? [] : [next, ...until(next, ends)];
};

const button = (words, pressed) => {
  const made = Object.assign(document.createElement("button"), { type: "button", className: "predict", textContent: words });
  made.addEventListener("click", pressed);
  return made;
};

// What the code itself tells of its output: the lines of an assert, and of a figure's caption.
const telling = (code) => {
  let told = "";
  const lines = code.innerHTML.split("\n").map((line) => {
    const text = line.replace(/<[^>]*>/g, "");
    if (/^assert\b/.test(text)) told = "assert";
    else if (/\bcaption=/.test(text)) told = "caption";
    else if (/^\S/.test(text) && !(told === "assert" && /^[)\]}]/.test(text))) told = "";
    return told ? `<span class="told">${line}</span>` : line;
  });
  code.innerHTML = lines.join("\n");
};

// A box around elements, and the button above it. What the code above tells waits with them.
const fold = (elements, word, number) => {
  const box = Object.assign(document.createElement("div"), { className: "folded", id: `folded-${number}` });
  const opener = button("", () => open(box.hidden));
  elements[0].before(opener, box);
  box.append(...elements);
  opener.setAttribute("aria-controls", box.id);
  const code = word === "output" ? opener.previousElementSibling?.querySelector("pre") : null;
  if (code) telling(code);
  const open = (shown) => {
    box.hidden = !shown;
    opener.textContent = `${shown ? "Hide" : "Show"} ${word}`;
    opener.setAttribute("aria-expanded", shown);
    code?.classList.toggle("waiting", !shown);
    regions();
  };
  const predict = (wanted) => {
    opener.hidden = !wanted;
    open(!wanted);
  };
  predict(false);
  return predict;
};

const predicting = () => {
  const lesson = document.querySelector("p.links");
  const [word, parts] = lesson ? ["output", outputs()] : ["answer", answers()];
  if (!parts.length) return;
  const folds = parts.map((elements, number) => fold(elements, word, number));
  let wanted = false;
  const toggle = () => {
    wanted = !wanted;
    for (const predict of folds) predict(wanted);
    all.textContent = `${wanted ? "Show" : "Hide"} ${word}s (o)`;
  };
  const all = button(`Hide ${word}s (o)`, toggle);
  all.setAttribute("aria-keyshortcuts", "o");
  (lesson ?? document.querySelector("article h1")).after(all);
  addEventListener("keydown", (event) => {
    const typed = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "o" && !typed && !event.ctrlKey && !event.altKey && !event.metaKey && !event.repeat) toggle();
  });
};

addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
  predicting();
  regions();
});
addEventListener("resize", regions);
