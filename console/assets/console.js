// What every page does: it shows what is new, obeys keys, opens dialogs, sends a form once, and says when the server is away.
import { tidy } from "./drafts.js";
import { follow } from "./live.js";
import { listen } from "./keys.js";

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method === "dialog") return;
  if (form.dataset.sent) return void event.preventDefault();
  form.dataset.sent = "yes";
  form.classList.add("busy-now");
});
// A page that the browser takes out of its memory is no page that has just sent a form.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.classList.remove("busy-now");
  }
});

// What is chosen is sent at once; by keys, which pass what one doesn't want on the way, when one presses Enter or goes on.
for (const field of document.querySelectorAll("form[data-submits-itself] :is(select, input[type=date])")) {
  let byKeys = false;
  let changed = false;
  const send = () => {
    if (!changed || !field.checkValidity()) return;
    changed = false;
    field.form.requestSubmit();
  };
  field.addEventListener("pointerdown", () => (byKeys = false));
  field.addEventListener("keydown", (event) => {
    byKeys = true;
    if (event.key === "Enter" && changed) (event.preventDefault(), send());
  });
  field.addEventListener("change", () => ((changed = true), byKeys || send()));
  field.addEventListener("blur", send);
}
// What was refused says why, and its dialog is open again. The page is no longer at the form's address, but at its own.
const errors = document.getElementById("errors");
errors?.focus();
const refused = errors && [...document.querySelectorAll("dialog > form")].find((form) => form.getAttribute("action") === location.pathname);
if (refused) {
  const told = errors.cloneNode(true);
  told.removeAttribute("id");
  if (!refused.querySelector(".told.bad")) refused.querySelector("h2").after(told);
  refused.closest("dialog").showModal();
}
const here = document.body.dataset.here;
if (here && location.pathname + location.search !== here) history.replaceState(null, "", here);
tidy();
listen();
follow();
