// Comfort for JSON: a fault leads to its line, a file fills the text.
document.addEventListener("click", (event) => {
  const to = event.target.closest("[data-line]");
  const text = document.getElementById("json");
  if (!to || !text) return;
  const lines = text.value.split("\n");
  const line = Number(to.dataset.line) - 1;
  const begin = lines.slice(0, line).join("\n").length + (line ? 1 : 0);
  text.focus();
  text.setSelectionRange(begin, begin + (lines[line] ?? "").length);
  text.scrollTop = (text.scrollHeight / lines.length) * Math.max(0, line - 5);
});

document.addEventListener("change", async (event) => {
  const input = event.target.closest("[data-fills]");
  if (input?.files.length) document.getElementById(input.dataset.fills).value = await input.files[0].text();
});

// A form that answers with a file leaves its page as it was: it can be sent again.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-file]")) return;
  setTimeout(() => {
    delete form.dataset.sent;
    form.classList.remove("busy-now");
  }, 1000);
});
