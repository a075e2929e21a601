// Two texts of one field: what somebody has typed, and what another has stored since. Both are shown, to choose from.
const bases = new WeakMap();

export const clean = (text) => text.replace(/\r\n/g, "\n").trim();

/** The stored text that was there when one began to type: where both texts stand still, not the one that is stored now. */
export const base = (field) => (bases.has(field) ? bases.get(field) : clean(field.dataset.stored ?? ""));

/** Whether both texts stand somewhere in a place, and nobody has chosen yet: the first choice takes the focus. */
export function undecided(place) {
  const choice = place.querySelector(".both-texts [data-takes]");
  choice?.focus();
  return choice !== null;
}

/** Show what is stored beside what stands in a field. `from`: what was stored when it was typed, null where nobody knows; `by`: whose text it is. */
export function both(field, text, { from = null, by = "", chosen = () => {} } = {}) {
  const place = field.closest(".field");
  place.querySelector(".both-texts")?.remove();
  if (!bases.has(field)) bases.set(field, from);
  const box = document.getElementById("both-texts").content.firstElementChild.cloneNode(true);
  const heading = box.querySelector("[data-by]");
  if (by) heading.textContent = heading.dataset.by.replace("{who}", `\u2068${by}\u2069`);
  box.querySelector(".theirs").textContent = text || "–";
  box.addEventListener("click", (event) => {
    const takes = event.target.closest("[data-takes]")?.dataset.takes;
    if (!takes) return;
    if (takes === "theirs") field.value = text;
    if (takes === "both") field.value = `${clean(field.value)}\n\n${text}`;
    bases.delete(field);
    box.remove();
    field.focus();
    chosen();
  });
  place.append(box);
}

/** What the server has shown beside a text that a form could not save, to be chosen from. */
export function offered(place, chosen) {
  for (const told of place.querySelectorAll("[data-theirs]")) {
    const field = told.closest(".field").querySelector("textarea");
    told.remove();
    both(field, clean(field.dataset.stored), { chosen });
  }
}
