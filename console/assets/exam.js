// What an event's link leads to unfolds below it; pressed again, it folds. It stays unfolded when the timeline is shown anew.
const open = new Map(); // address -> what is shown

async function unfold(link) {
  const address = link.getAttribute("href");
  if (open.has(address)) return fold(link, address);
  if (link.ariaBusy === "true") return;
  link.ariaBusy = "true";
  const answer = await fetch(address);
  link.ariaBusy = "false";
  if (answer.redirected || !answer.ok) return void (location.href = address);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.querySelector("[data-detail]");
  if (!found) return void (location.href = address);
  const shown = document.importNode(found, true);
  for (const element of shown.querySelectorAll("[data-key]")) element.removeAttribute("data-key");
  for (const key of shown.querySelectorAll("kbd")) key.remove();
  shown.classList.add("unfolded");
  open.set(address, shown);
  place(linkTo(address), shown); // the timeline may have been shown anew meanwhile
}

const linkTo = (address) => document.querySelector(`a[data-unfolds][href="${CSS.escape(address)}"]`);

function place(link, shown) {
  link?.setAttribute("aria-expanded", "true");
  link?.closest("[data-row]").append(shown);
}

function fold(link, address) {
  open.get(address).remove();
  open.delete(address);
  link.setAttribute("aria-expanded", "false");
}

function prepare() {
  for (const link of document.querySelectorAll("a[data-unfolds]")) {
    const shown = open.get(link.getAttribute("href"));
    link.setAttribute("role", "button");
    if (shown) place(link, shown);
    else link.setAttribute("aria-expanded", "false");
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-unfolds]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  unfold(link);
});
document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.("a[data-unfolds]");
  if (link && event.key === " ") {
    event.preventDefault();
    unfold(link);
  }
});
document.addEventListener("ris:refreshed", prepare);
prepare();
