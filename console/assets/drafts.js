// What was typed and is not on the server yet, kept in this tab alone (sessionStorage) until it is saved or the person logs out.
const PREFIX = "ris-draft ";
const me = document.body.dataset.user;

const names = () => Object.keys(sessionStorage).filter((name) => name.startsWith(PREFIX));

/** Keep a draft under a name of ids. */
export function keep(name, draft) {
  sessionStorage.setItem(PREFIX + name, JSON.stringify({ by: me, draft }));
}

/** The draft that this person has kept under a name, or null. */
export function kept(name) {
  const found = JSON.parse(sessionStorage.getItem(PREFIX + name) ?? "null");
  return found?.by === me ? found.draft : null;
}

/** Forget the draft of a name, and what was kept below it. */
export function drop(name) {
  for (const one of names()) if (one === PREFIX + name || one.startsWith(`${PREFIX}${name}/`)) sessionStorage.removeItem(one);
}

/** Keep what is typed into forms with `data-kept` (a name), and give it back after a login that came between. */
export function keepForms() {
  for (const form of document.querySelectorAll("form[data-kept]")) {
    const fields = [...form.querySelectorAll("textarea, select, input:not([type=hidden])")].filter((field) => field.name);
    const draft = kept(form.dataset.kept);
    if (draft && !document.getElementById("errors")) for (const field of fields) field.value = draft[field.name] ?? field.value;
    form.querySelector("[data-forgets]")?.addEventListener("click", () => drop(form.dataset.kept));
    form.addEventListener("input", () => keep(form.dataset.kept, Object.fromEntries(fields.map((field) => [field.name, field.value]))));
  }
}

/** Forget what somebody else has left in this tab, and everything at a logout. */
export function tidy() {
  for (const name of names()) if (kept(name.slice(PREFIX.length)) === null) sessionStorage.removeItem(name);
  document.addEventListener("submit", (event) => {
    if (new URL(event.target.action).pathname === "/logout") for (const name of names()) sessionStorage.removeItem(name);
  });
}
