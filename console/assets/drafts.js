// What was typed and is not on the server yet, kept in this tab alone (sessionStorage) until it is saved or the person logs out.
const PREFIX = "ris-draft ";
const me = document.body.dataset.user;

const names = () => Object.keys(sessionStorage).filter((name) => name.startsWith(PREFIX));

/** What this person has kept under a name: {draft, sent}, or null. */
function found(name) {
  const one = JSON.parse(sessionStorage.getItem(PREFIX + name) ?? "null");
  return one?.by === me ? one : null;
}

/** Keep a draft under a name of ids. */
export function keep(name, draft, sent = false) {
  sessionStorage.setItem(PREFIX + name, JSON.stringify({ by: me, draft, sent }));
}

/** The draft that this person has kept under a name, or null. */
export const kept = (name) => found(name)?.draft ?? null;

/** Forget the draft of a name. */
export function drop(name) {
  sessionStorage.removeItem(PREFIX + name);
}

/** The draft of a name is on its way to the server: what is typed from here on is another one. */
export function sending(name) {
  const draft = kept(name);
  if (draft) keep(name, draft, true);
}

/** The server has what was sent of a name. */
export function settle(name) {
  if (found(name)?.sent) drop(name);
}

/** Forget what somebody else has left in this tab, and everything at a logout. */
export function tidy() {
  for (const name of names()) if (kept(name.slice(PREFIX.length)) === null) sessionStorage.removeItem(name);
  document.addEventListener("submit", (event) => {
    if (new URL(event.target.action).pathname === "/logout") for (const name of names()) sessionStorage.removeItem(name);
  });
}
