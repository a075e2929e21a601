// What tests/every_page.py asks of the page that is open; each answers with what is wrong.
window.look = (() => {
  const shown = (e) => e.getClientRects().length > 0;
  const name = (e) => (e.getAttribute("aria-label") || e.textContent || e.id || "").replace(/\s+/g, " ").trim().slice(0, 40);
  const place = (e) => [e.localName, e.id && `#${e.id}`, ...[...e.classList].map((c) => `.${c}`)].join("");
  const grave = ["serious", "critical"];
  const pressed = "a, button, summary";
  // Meant to be moved sideways when they are wider than their place, or cut for the eye only; a long table on a tablet, too.
  const moves = ".compare, .wide-table:has(.compared), .planner-board, pre, textarea, select, option, .hidden-text";

  const cut = ".planner-board"; // whose bookings are as long as they take: their names are cut with "…", and whole where they are picked

  /** What axe-core finds in a part of the page, or all. The rules whose faults are neither serious nor critical only cost time. */
  async function faults(part) {
    const asked = (rule) => rule.enabled && grave.includes(rule.impact ?? "critical");
    const rules = axe._audit.rules.filter(asked).map((rule) => rule.id);
    const how = { runOnly: { type: "rule", values: rules }, resultTypes: ["violations"] };
    const found = await axe.run(part ?? document, how);
    const bad = found.violations.filter((one) => grave.includes(one.impact));
    return bad.map((one) => `${one.id}: ${one.nodes.slice(0, 4).map((node) => node.target.join(" ")).join(" | ")}`);
  }

  /** What is wider than its place: the page than the window, or a part of it that can be moved sideways and shouldn't need to be. */
  function sideways() {
    const root = document.documentElement;
    const told = root.scrollWidth > root.clientWidth ? [`the page is ${root.scrollWidth} wide, the window ${root.clientWidth}`] : [];
    for (const e of document.querySelectorAll("body *")) {
      if (e.matches(".wide-table") && innerWidth < 1280) continue;
      if (!(e instanceof HTMLElement) || !shown(e) || getComputedStyle(e).overflowX === "visible" || e.matches(moves) || e.closest(cut)) continue;
      if (e.scrollWidth > e.clientWidth + 1) told.push(`${place(e)} is ${e.scrollWidth} wide in ${e.clientWidth}`);
    }
    for (const e of document.querySelectorAll("main dd")) {
      if (shown(e) && e.clientWidth < 48 && name(e).length > 8) told.push(`no room for ${name(e)}`);
    }
    return told;
  }

  /**
   * An action is a button, a link that looks like one, or what unfolds. It has a key of its own; or stands in a row, where j and k
   * lead; or sends the form that one types in, which Enter does; or leads where something with a key leads; or has the focus when the
   * page opens. No two have the same key, and none has one of the frame's.
   */
  function keys() {
    const told = [];
    const typed = (form) => [...form.elements].some((e) => e.matches("input:not([type=hidden]), textarea, select") && shown(e));
    const there = (e) => e.href && document.querySelector(`main a[data-key][href="${CSS.escape(e.getAttribute("href"))}"]`);
    const sends = (e) => e.form && typed(e.form) && [...e.form.elements].find((one) => one.type === "submit") === e;
    for (const e of document.querySelectorAll("main :is(button, a.button, summary, [data-opens])")) {
      const reached = e.dataset.key || there(e) || e.closest("[data-rows] [data-row]") || sends(e) || e === document.activeElement;
      if (shown(e) && !reached) told.push(`no key for ${e.localName} ${name(e)}`);
    }
    const known = new Map(["g", "/", "?", "j", "k"].map((key) => [key, "the frame"]));
    for (const e of document.querySelectorAll("main [data-key]")) {
      if (!shown(e) || e.parentElement.closest("[data-row]")) continue;
      const key = e.dataset.key;
      if (known.has(key)) told.push(`${key} is the key of ${known.get(key)} and of ${name(e)}`);
      known.set(key, name(e));
    }
    for (const row of document.querySelectorAll("main [data-row]")) {
      const own = [...row.querySelectorAll("[data-key]")].filter(shown).map((e) => e.dataset.key);
      if (new Set(own).size < own.length) told.push(`twice in a row: ${own}`);
    }
    return told;
  }

  /** After j was pressed. */
  function walked() {
    const rows = [...document.querySelectorAll("main [data-rows] [data-row]")];
    const some = rows.some((row) => shown(row) && (row.matches(pressed) || row.querySelector(pressed)));
    return some && !document.activeElement.closest("[data-row]") ? ["j leads to no row"] : [];
  }

  return { faults, sideways, keys, walked };
})();
