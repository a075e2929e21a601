// The key of a row's button counts on the row where the focus is, and on no other: nothing is accepted by mistake.
function give(row, on) {
  for (const button of row?.querySelectorAll("[data-row-key]") ?? []) {
    if (on) button.dataset.key = button.dataset.rowKey;
    else delete button.dataset.key;
  }
}
document.addEventListener("focusin", (event) => give(event.target.closest("[data-row]"), true));
document.addEventListener("focusout", (event) => give(event.target.closest("[data-row]"), false));
