// The board by keyboard and mouse: arrows walk over it, orders and bookings are dragged to a free time. Without it all is by links.
const board = document.getElementById("board");
const open = new Set();

/** What can be pressed on the board, with where it is. */
function places() {
  return [...board.querySelectorAll("td a")].map((link) => ({ link, at: link.getBoundingClientRect() }));
}

const middle = (at) => ({ x: at.left + at.width / 2, y: at.top + at.height / 2 });

/** The nearest one in a direction: in the same column up and down, in the same row (if anything is there) left and right. */
function next(from, key) {
  const was = from.getBoundingClientRect();
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const forth = key === "ArrowRight" || key === "ArrowDown";
  let best = null;
  let least = Infinity;
  for (const { link, at } of places()) {
    if (link === from) continue;
    const [a, b] = [middle(at), middle(was)];
    const ahead = sideways ? (forth ? at.left >= was.right - 4 : at.right <= was.left + 4) : forth ? at.top >= was.bottom - 4 : at.bottom <= was.top + 4;
    const same = sideways ? true : at.left < was.right - 4 && at.right > was.left + 4;
    if (!ahead || !same) continue;
    const apart = sideways ? Math.abs(a.x - b.x) + 20 * Math.max(0, at.top - was.top - 2, was.top + 2 - at.bottom) : Math.abs(a.y - b.y);
    if (apart < least) [best, least] = [link, apart];
  }
  return best;
}

function focus(link) {
  link.focus({ preventScroll: true });
  link.scrollIntoView({ block: "nearest", inline: "nearest" });
}

board.addEventListener("keydown", (event) => {
  if (!event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
  const from = event.target.closest("td a");
  const to = from ? next(from, event.key) : board.querySelector("td a[data-free]") ?? board.querySelector("td a");
  event.preventDefault();
  if (to) focus(to);
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-to-board]")) return;
  event.preventDefault();
  const first = board.querySelector("td a.chosen") ?? board.querySelector("td a[data-free]") ?? board.querySelector("td a");
  if (first) focus(first);
});

// Dragging
let dragged = null;
document.addEventListener("dragstart", (event) => {
  dragged = event.target.closest?.("[data-order], [data-booking]");
  if (!dragged) return;
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", "");
  dragged.classList.add("dragged");
});
document.addEventListener("dragend", () => {
  dragged?.classList.remove("dragged");
  dragged = null;
});
const target = (event) => (dragged ? event.target.closest?.("[data-free]") : null);
board.addEventListener("dragover", (event) => target(event) && event.preventDefault());
board.addEventListener("dragenter", (event) => target(event)?.classList.add("over"));
board.addEventListener("dragleave", (event) => target(event)?.classList.remove("over"));
board.addEventListener("drop", (event) => {
  const free = target(event);
  if (!free) return;
  event.preventDefault();
  const to = new URL(free.href);
  for (const name of ["order", "booking", "move"]) to.searchParams.delete(name);
  if (dragged.dataset.order) {
    to.searchParams.set("order", dragged.dataset.order);
  } else {
    to.searchParams.set("booking", dragged.dataset.booking);
    to.searchParams.set("move", "1");
  }
  location.assign(to);
});

// What is made anew stays open where it was.
document.addEventListener(
  "toggle",
  (event) => {
    if (!event.target.matches?.("details[id]")) return;
    open[event.target.open ? "add" : "delete"](event.target.id);
    if (event.target.open) event.target.querySelector("input:not([type=hidden]), select, textarea")?.focus();
  },
  true,
);
document.addEventListener("ris:refreshed", () => {
  for (const id of [...open]) {
    const details = document.getElementById(id);
    if (details && !details.open) details.open = true;
  }
});

// Where one goes on: at what is to be confirmed, else at the first free time; the board at what is chosen, else at now.
if (!document.getElementById("errors")) document.querySelector(".confirm [data-first], .picked [data-first]")?.focus();
const there = board.querySelector("a.chosen") ?? board.querySelector("[aria-current=time]");
if (there) board.scrollTop = there.getBoundingClientRect().top - board.getBoundingClientRect().top - board.clientHeight / 3;
