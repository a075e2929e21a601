// What is typed into the forms of reading, kept in the tab (drafts.js): given back after a login that came between, shown where its form is gone.
import { base, both, clean, offered, undecided } from "./both.js";
import { drop, keep, kept, sending, settle } from "./drafts.js";

/** Keep what is typed within `data-kept` (a name), and give it back. */
export function keepForms() {
  for (const settled of document.querySelectorAll("[data-settled]")) settle(settled.dataset.settled);
  for (const place of document.querySelectorAll("[data-kept]")) keepPlace(place, place.dataset.kept);
}

function keepPlace(place, name) {
  const fields = [...place.querySelectorAll("textarea, select, input:not([type=hidden])")].filter((field) => field.name);
  const typed = () => {
    const changed = fields.filter((field) => clean(field.value) !== base(field));
    if (!changed.length) return drop(name);
    keep(name, Object.fromEntries(changed.map((field) => [field.name, { text: field.value, stored: base(field) }])));
  };
  const draft = kept(name);
  if (document.getElementById("errors")) offered(place, typed);
  else if (draft) for (const field of fields.filter((field) => field.name in draft)) give(field, draft[field.name], typed);
  place.addEventListener("input", typed);
  place.querySelector("[data-forgets]")?.addEventListener("click", () => drop(name));
  place.closest("form")?.addEventListener("submit", (event) => (undecided(place) ? event.preventDefault() : sending(name)));
}

/** Give a field back what was typed into it; where another has changed the stored text since, with that beside it. */
function give(field, { text, stored }, chosen) {
  const now = base(field);
  if (clean(text) === now) return;
  field.value = text;
  if (stored !== now) both(field, now, { from: stored, chosen });
}

/** What was typed here and could not be saved, on a page that has no editor any more: to be copied, then discarded. */
export function showLeft(place) {
  const report = place.dataset.left;
  const finding = kept(`${report}/finding`) ?? {};
  const words = ["name", "value", "unit"].map((part) => finding[`finding.${part}`]?.text.trim()).filter(Boolean);
  const texts = (kept(report)?.sections ?? []).map((section) => `${section.title}\n${clean(section.text)}`);
  if (words.length) texts.push(`${place.dataset.finding}\n${words.join(" ")}`);
  // What the server shows of a form that it has refused is the same.
  if (!texts.length || document.getElementById("kept")) return;
  place.querySelector("pre").textContent = texts.join("\n\n");
  place.hidden = false;
  place.querySelector("button").addEventListener("click", () => (drop(report), drop(`${report}/finding`), place.remove()));
}
