// A display formula a little wider than its column is set smaller. What scrolls within its own box can be reached by the
// keyboard: formulas, code and tables wider than the page. The arrows that unfold the contents have a name. A full stop
// or comma stays on the line of the formula before it.
(() => {
  const boxes = ".bd-article :is(.math, .math mjx-container, pre, .pst-scrollable-table-container)";

  const LEAST = 0.75; // of its size; below that a formula scrolls instead

  const fit = () => {
    for (const formula of document.querySelectorAll(".bd-article div.math mjx-container")) {
      formula.dataset.size ||= parseFloat(formula.style.fontSize) || 100;
      formula.style.fontSize = `${formula.dataset.size}%`;
      const share = formula.clientWidth / formula.scrollWidth;
      if (share < 1) formula.style.fontSize = `${formula.dataset.size * Math.max(LEAST, 0.99 * share)}%`;
    }
  };

  const mark = () => {
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = getComputedStyle(box).overflowX === "auto" && box.scrollWidth > box.clientWidth;
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  const name = () => {
    for (const arrow of document.querySelectorAll(".bd-links summary:not([aria-label])")) {
      const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
      arrow.setAttribute("aria-label", `Pages under ${page}`);
    }
  };

  const hold = () => {
    for (const formula of document.querySelectorAll(".bd-article span.math")) {
      const text = formula.nextSibling;
      const sign = text?.nodeType === Node.TEXT_NODE && text.data.match(/^[.,;:!?)]+/)?.[0];
      if (!sign) continue;
      const line = document.createElement("span");
      line.className = "book-line";
      formula.replaceWith(line);
      line.append(formula, sign);
      text.data = text.data.slice(sign.length);
    }
  };

  document.addEventListener("DOMContentLoaded", () => (name(), hold()));
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    requestAnimationFrame(() => (fit(), mark()));
    // A typeface that comes late widens what stands in a box, and tells nobody.
    const sizes = new ResizeObserver(mark);
    for (const box of document.querySelectorAll(boxes)) for (const part of [box, ...box.children]) sizes.observe(part);
  });
  for (const event of ["resize", "toggle"]) window.addEventListener(event, () => (fit(), mark()), true);
})();
