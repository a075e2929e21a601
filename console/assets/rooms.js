// The lists of those who are done stay open; waiting times go on; a form that was refused is open again.
import { refresh } from "./live.js";

const opened = new Set(JSON.parse(sessionStorage.getItem("ris-rooms-done") ?? "[]"));

function reopen() {
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
}
document.addEventListener(
  "toggle",
  (event) => {
    const list = event.target;
    if (!list.matches?.("details.done") || !list.isConnected) return;
    opened[list.open ? "add" : "delete"](list.id);
    sessionStorage.setItem("ris-rooms-done", JSON.stringify([...opened]));
  },
  true,
);
document.addEventListener("ris:refreshed", reopen);
reopen();
// A page that shows a refused form stands at the form's address: what is new is asked for at its own.
const here = document.querySelector("[data-here]")?.dataset.here;
if (here && location.pathname !== here) history.replaceState(null, "", here);
document.querySelector("dialog[data-again]")?.showModal();
setInterval(() => document.hidden || refresh(), 60_000);
