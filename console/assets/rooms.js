// The lists of those who are done stay open; waiting times go on.
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
setInterval(() => document.hidden || refresh(), 60_000);
