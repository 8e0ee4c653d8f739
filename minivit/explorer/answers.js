// The model's answers: a bar, the logit and the probability of each; beside them what they were with every head in.

const MOST = 10; // of a thousand classes only the likeliest are shown

class Answers {
  constructor(app) {
    this.app = app;
  }

  show() {
    const { source, data } = this.app;
    const logits = this.comparesTwin ? null : source.logits();
    byId("answers-note").textContent = this.note(logits);
    byId("answers-title").textContent = data.answers_are === "photos" ? "Most like which photo?" : "Answers";
    byId("bars").replaceChildren(...(logits ? this.rows(source, logits) : []));
  }

  // An untrained model finds a photo most like itself, too: its answers would look like something learned.
  get comparesTwin() {
    return this.app.state.twin && this.app.data.answers_are === "photos";
  }

  note(logits) {
    if (this.comparesTwin) return "Of the twin none: a photo is most like itself, trained or not.";
    if (!logits) return "None: the page has no answers of this model.";
    const empty = /^0+$/.test(this.app.state.drawing ?? "");
    return empty ? "Nothing is drawn, and yet it answers: a model must always say something." : "";
  }

  rows(source, logits) {
    const probabilities = source.probabilities();
    const before = this.before(source);
    let order = [...logits.keys()];
    if (order.length > MOST) order = order.sort((a, b) => logits[b] - logits[a]).slice(0, MOST);
    const best = likeliest(logits);
    return order.map((k) => this.row(k, source.answers[k], logits[k], probabilities[k], before && before[k], k === best));
  }

  // A photo's answers do not change but by a knock-out; a drawing's do, so that there is nothing to compare with.
  before(source) {
    if (source.kind !== "photo" || source.knocked.size === 0) return null;
    const out = [...source.knocked].join(",");
    knockLike(source, "");
    const logits = source.logits();
    knockLike(source, out);
    return logits;
  }

  // The likeliest answer, to be read aloud.
  withoutHeads() {
    const { source, state } = this.app;
    const [logits, probabilities] = [source.logits(), source.probabilities()];
    const heads = state.knocked.split(",").map((name) => headName(...name.split(".")));
    const without = `Without ${heads.length > 2 ? `${heads.length} heads` : heads.join(" and ")}`;
    if (!logits) return without;
    const best = likeliest(logits);
    return `${without}: ${shortened(source.answers[best])}, ${(100 * probabilities[best]).toFixed(1)} %`;
  }

  row(k, name, logit, probability, before, best) {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span", {}));
    bar.firstChild.style.width = `${100 * probability}%`;
    const change = before === null || before === undefined ? "" : `was ${minus(before.toFixed(3))}`;
    return element(
      "tr",
      best ? { class: "best" } : {},
      element("th", { scope: "row", title: name }, shortened(name), change && element("small", {}, change)),
      element("td", { class: "bars" }, bar),
      element("td", { class: "number" }, `${(100 * probability).toFixed(1)} %`),
      element("td", { class: "number" }, minus(logit.toFixed(3)))
    );
  }
}
