// What scrolls can be scrolled by keys, and says its name; the navigation's captions have a level.
const regions = () => {
  for (const region of document.querySelectorAll("article pre, article .table-wrapper")) {
    if (region.scrollWidth <= region.clientWidth) continue;
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", region.matches("pre") ? "code or output" : "table");
  }
};

addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll("p.caption[role=heading]")) caption.setAttribute("aria-level", "2");
  regions();
});
addEventListener("resize", regions);
