// Keys: `data-key` presses or focuses what has it, within a `data-row` only from the row that has the focus: no other row is pressed by
// mistake. `g` and a screen's key go there; j, k and the arrows walk through `data-rows`; f goes to the first field.
const typing = (target) => target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
const off = () => localStorage.getItem("ris-keys") === "off";
let going = 0;

const shown = (element) => element.getClientRects().length > 0;

function scope() {
  return document.querySelector("dialog[open]") ?? document;
}

function enter(field) {
  field.focus();
  field.select?.();
}

const first = (place) => [...place.querySelectorAll("input:not([type=hidden]), select, textarea")].find((field) => shown(field) && !field.disabled);

function press(element) {
  if (element.matches("input, select, textarea")) return enter(element);
  element.click();
  // What was folded is there to be filled in.
  const unfolded = element.closest("summary")?.parentElement;
  if (unfolded?.open) first(unfolded)?.focus();
}

// Where a row takes the focus: what it is, or the first thing in it that can be pressed. A row without any is only read.
const stop = (row) => (row.matches("a, button, summary, [tabindex]") ? row : row.querySelector("a, button, summary"));

function walk(step) {
  const rows = [...scope().querySelectorAll("[data-rows] [data-row]")].filter((row) => shown(row) && stop(row));
  if (!rows.length) return false;
  const at = rows.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
  const to = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step))];
  stop(to).focus();
  to.scrollIntoView({ block: "nearest" });
  return true;
}

function key(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing(event.target) && !event.target.closest("dialog")) return void event.target.blur();
  if (off() || typing(event.target)) return;
  if (going && Date.now() - going < 1500) {
    going = 0;
    const to = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    if (to && !document.querySelector("dialog[open]")) return void (event.preventDefault(), to.click());
  }
  if (event.key === "g") return void (going = Date.now());
  // A key on the row where the focus is comes before the same one elsewhere.
  const here = event.target.closest("[data-row]");
  const elsewhere = [...scope().querySelectorAll("[data-key]")].filter((element) => !element.parentElement.closest("[data-row]"));
  const found = [...(here?.querySelectorAll("[data-key]") ?? []), ...elsewhere].find(
    (element) => element.dataset.key === event.key && !element.disabled && (shown(element) || element.closest("details[data-menu]")),
  );
  if (found) return void (event.preventDefault(), press(found));
  const field = event.key === "f" && first(document.querySelector("dialog[open]") ?? document.querySelector("main"));
  if (field) return void (event.preventDefault(), enter(field));
  if (["j", "ArrowDown"].includes(event.key) && walk(1)) event.preventDefault();
  if (["k", "ArrowUp"].includes(event.key) && walk(-1)) event.preventDefault();
}

/** What an element is called, without the key that it shows. */
function name(element) {
  const text = (element.labels?.[0] ?? element).cloneNode(true);
  for (const key of text.querySelectorAll("kbd")) key.remove();
  return (element.getAttribute("aria-label") || text.textContent || element.title || "").replace(/\s+/g, " ").trim();
}

/** Fill in the list of the keys of this page. */
function list() {
  const here = document.getElementById("keys-here");
  const rows = new Map();
  for (const element of document.querySelectorAll("[data-go]")) rows.set(`g ${element.dataset.go}`, name(element));
  for (const element of document.querySelectorAll("[data-key]")) if (!rows.has(element.dataset.key)) rows.set(element.dataset.key, name(element));
  if (document.querySelector("[data-rows]")) rows.set("j k", here.dataset.walk);
  if (!rows.has("f") && first(document.querySelector("main"))) rows.set("f", here.dataset.field);
  here.replaceChildren(
    ...[...rows].flatMap(([pressed, text]) => {
      const term = document.createElement("dt");
      term.append(Object.assign(document.createElement("kbd"), { textContent: pressed }));
      return [term, Object.assign(document.createElement("dd"), { textContent: text })];
    }),
  );
}

/** Obey keys from now on. */
export function listen() {
  document.addEventListener("keydown", key);
  const box = document.getElementById("keys-off");
  box.checked = off();
  box.addEventListener("change", () => localStorage.setItem("ris-keys", box.checked ? "off" : "on"));
  document.addEventListener("click", (event) => event.target.closest('[data-opens="keys"]') && list());
}
