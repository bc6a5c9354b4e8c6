// What the site check asks of one page, inside the browser. Each question returns its faults as text: what, where; way out.
(() => {
  const CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]";
  const MEASURES = ["outlineStyle", "outlineWidth", "boxShadow", "borderColor", "borderWidth", "backgroundColor",
    "textDecorationLine", "textDecorationThickness"];
  const ALT_LENGTH = 40;
  const FILE_NAME = /^\S+\.(png|svg|jpe?g|webp|gif)$/i;
  const RAW_TEX = /\$\$|\\[([]|\\[a-zA-Z]{2,}|\$[^$\n]{1,80}\$/;
  const NOT_PROSE = "pre, code, script, style, noscript, textarea, mjx-container, .math, [hidden]";

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const short = (text) => text.trim().replace(/\s+/g, " ").slice(0, 50);
  const visible = (element) =>
    element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

  /** The element as a person would name it: tag, id or classes, and the words it holds. */
  function name(element) {
    const classes = [...element.classList].slice(0, 3).map((c) => "." + c).join("");
    const words = short(element.getAttribute("aria-label") || element.innerText || element.getAttribute("title") || "");
    return element.localName + (element.id ? "#" + element.id : classes) + (words ? ` “${words}”` : "");
  }

  /** At most three examples of one fault, so that a list stays readable. */
  function examples(elements, name_of = name) {
    const more = elements.length > 3 ? ` and ${elements.length - 3} more` : "";
    return elements.slice(0, 3).map(name_of).join(", ") + more;
  }

  const FOLDED = /^# @title /; // the first line of a code cell that the reader has to open
  const shown = [];

  /** Wait for the mathematics, the fonts and the pictures; open what is folded; stop what moves. */
  async function ready() {
    const still = document.createElement("style");
    still.textContent = "*, ::before, ::after { transition: none !important; scroll-behavior: auto !important }";
    document.head.append(still);
    shown.push(...all(".cell_input").filter((cell) => FOLDED.test(cell.textContent.trim()) && visible(cell)));
    for (const fold of all("details")) fold.open = true;
    for (const picture of all("img")) picture.loading = "eager";
    if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
    await Promise.all(all("img").filter(visible).map((picture) => picture.decode().catch(() => null)));
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))); // drawing asks for fonts
    await document.fonts.ready;
  }

  function icon() {
    if (document.querySelector("link[rel~=icon]")) return [];
    return ["it names no icon, so that browsers ask the host's root for one; add <link rel=icon>"];
  }

  function mathematics() {
    const faults = [];
    const plain = all(".math").filter((formula) => !formula.querySelector("mjx-container"));
    if (plain.length) faults.push(`mathematics is not typeset: ${examples(plain)}; is MathJax on the page?`);
    const wrong = all("mjx-merror, [data-mjx-error], mjx-container [style*='color: red']");
    const source = (element) => `“${short(element.getAttribute("data-mjx-error") || element.textContent)}”`;
    if (wrong.length) faults.push(`MathJax reports an error: ${examples(wrong, source)}; mend the TeX`);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode;
      if (RAW_TEX.test(text.data) && !text.parentElement.closest(NOT_PROSE))
        faults.push(`TeX stands in the text: “${short(text.data)}”; write it so that the page's markup sees a formula`);
    }
    return faults;
  }

  function images() {
    const faults = [];
    const source = (picture) => short(picture.getAttribute("src") || "");
    for (const picture of all("img")) {
      const alt = picture.getAttribute("alt");
      if (visible(picture) && picture.naturalWidth === 0)
        faults.push(`the image ${source(picture)} is not shown; does the file exist?`);
      if (alt === null || FILE_NAME.test(alt.trim()))
        faults.push(`the image ${source(picture)} has no alt text; say what is to be seen`);
      else if (picture.closest("article") && alt.trim().length < ALT_LENGTH)
        faults.push(`alt text “${alt}” of ${source(picture)}: ${ALT_LENGTH} characters at least say what is to be seen`);
    }
    return faults;
  }

  /** Whether an ancestor scrolls or cuts the element, so that it does not widen the page. */
  function contained(element) {
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== "visible") return true;
    return false;
  }

  function width() {
    const wide = document.scrollingElement.scrollWidth;
    if (wide <= innerWidth) return [];
    const right = (element) => element.getBoundingClientRect().right;
    const outside = all("body *").filter((element) => visible(element) && right(element) > innerWidth + 1 && !contained(element));
    const worst = outside.sort((a, b) => right(b) - right(a)).slice(0, 1).map(name);
    return [`the page scrolls sideways, ${wide} px wide, because of ${worst}; let it wrap or scroll in itself`];
  }

  /** Code cells with a title whose code stood open when the page came. */
  function folds() {
    if (!shown.length) return [];
    return [`a cell with a title is not folded: ${examples(shown)}; give it the tag hide-input`];
  }

  /** Display formulas that end in the middle, and on a wide screen code that does: both can only be read by scrolling. */
  function overflow() {
    const wider = (box) => visible(box) && box.scrollWidth > box.clientWidth + 1;
    const faults = [];
    const formulas = all(".bd-article div.math").filter((box) => [box, ...all("mjx-container", box)].some(wider));
    const label = (box) => box.querySelector(".eqno")?.textContent || short(box.textContent);
    if (formulas.length) faults.push(`wider than its column: the formula ${examples(formulas, label)}; break it with aligned`);
    const code = innerWidth < 1000 ? [] : all(".bd-article .highlight pre").filter(wider);
    if (code.length) faults.push(`wider than its box: the code ${examples(code)}; break its lines at 84 columns`);
    return faults;
  }

  /** Whether the page's ground is light or dark, as it is painted. */
  function ground() {
    const painted = [document.body, document.documentElement].map((e) => getComputedStyle(e).backgroundColor);
    const rgba = painted.map((colour) => colour.match(/[\d.]+/g).map(Number)).find((c) => c[3] !== 0) || [255, 255, 255];
    return 0.3 * rgba[0] + 0.59 * rgba[1] + 0.11 * rgba[2] < 128 ? "dark" : "light";
  }

  /** How an element and what it stands in look: focus has to change it. */
  function look(element) {
    const around = [element, element.parentElement, element.parentElement?.parentElement].filter(Boolean);
    const styles = around.map((e) => getComputedStyle(e));
    styles.push(getComputedStyle(element, "::before"), getComputedStyle(element, "::after"));
    return styles.map((style) => MEASURES.map((measure) => style[measure]).join(" ")).join("|");
  }

  function opacity(element) {
    let product = 1;
    for (let box = element; box; box = box.parentElement) product *= getComputedStyle(box).opacity;
    return product;
  }

  /** A control a reader may use now. Of a group of radio buttons the keyboard stops at one. */
  function usable(element) {
    if (!visible(element) || element.disabled || element.closest("[inert]")) return false;
    if (element.type === "radio" && !element.checked) return false;
    return element.matches("a, button, input, select, textarea, summary") || element.tabIndex >= 0;
  }

  const focus = { plain: new Map(), seen: new Set(), unmarked: [], round: false };

  /** Note how every control looks at rest, and what each looks like when the focus comes. */
  function watch() {
    document.activeElement?.blur();
    scrollTo(0, 0);
    focus.plain = new Map(all(CONTROLS).filter(usable).map((control) => [control, look(control)]));
    document.addEventListener("focusin", ({ target }) => {
      if (focus.seen.has(target)) return void (focus.round = true);
      focus.seen.add(target);
      if (focus.plain.has(target) && (look(target) === focus.plain.get(target) || opacity(target) === 0))
        focus.unmarked.push(target);
    });
    return focus.plain.size;
  }

  function keyboard() {
    const missed = [...focus.plain.keys()].filter((control) => !focus.seen.has(control) && usable(control));
    const faults = [];
    if (!focus.round) faults.push("the Tab key does not come round; does something hold the focus?");
    if (missed.length) faults.push(`the Tab key does not reach ${examples(missed)}; give it a place in the tab order`);
    if (focus.unmarked.length) faults.push(`focus is not to be seen on ${examples(focus.unmarked)}; style :focus-visible`);
    return faults;
  }

  /** Formulas become one word of their colour, and of code words of one kind one remains: axe then needs a fifth of its time. */
  function thin() {
    for (const formula of all("mjx-container")) formula.replaceChildren("formula");
    const kinds = new Set();
    for (const word of all(".highlight pre span, dt.sig span, dt.sig em").reverse()) {
      if (word.children.length) continue;
      const chain = [];
      for (let box = word; box && !box.matches(".cell, dd, section, details"); box = box.parentElement) chain.push(box.className);
      const kind = chain.join(" ");
      if (kinds.has(kind)) word.replaceWith(word.textContent);
      kinds.add(kind);
    }
  }

  /** The colours in which an article is painted, and what of it is to be seen. */
  function painted() {
    const look = (element) => {
      const { color, backgroundColor, opacity } = getComputedStyle(element);
      return [color, backgroundColor, opacity, visible(element)];
    };
    return all("article, article *").map(look).join(";");
  }

  const COLOURS = "color-contrast";

  /** Whether text stands out from its ground, but for what is spared. */
  const colours = (spared) => axe({ exclude: spared }, { runOnly: [COLOURS] });

  /** Every other rule of the tags. */
  const rules = (tags) => axe(document, { runOnly: tags, rules: { [COLOURS]: { enabled: false } } });

  /** What axe-core finds, one fault for each rule: what it says of the first elements. */
  async function axe(where, options) {
    const { violations } = await window.axe.run(where, { ...options, resultTypes: ["violations"], preload: false });
    const reason = (node) => [...node.any, ...node.all, ...node.none].map((check) => check.message)[0];
    const target = (node) => `${node.target.join(" ")} (${reason(node)})`;
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${examples(nodes, target)}`);
  }

  window.siteCheck = {
    ready, icon, mathematics, images, width, folds, overflow, ground, watch, keyboard, thin, painted, colours, rules,
    round: () => focus.round,
  };
})();
