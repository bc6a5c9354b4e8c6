// What scrolls within its own box can be reached by the keyboard: formulas, code and tables wider than the page.
// The arrows that unfold the contents have a name.
(() => {
  const boxes = ".bd-article :is(.math, .math mjx-container, pre, .pst-scrollable-table-container)";

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

  document.addEventListener("DOMContentLoaded", name);
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    requestAnimationFrame(mark);
    // A typeface that comes late widens what stands in a box, and tells nobody.
    const sizes = new ResizeObserver(mark);
    for (const box of document.querySelectorAll(boxes)) for (const part of [box, ...box.children]) sizes.observe(part);
  });
  window.addEventListener("resize", mark);
  document.addEventListener("toggle", mark, true);
})();
