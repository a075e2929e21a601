// The pages of reading: the editor of a report with its keys and text blocks, and what was typed into their forms.
import { Editor } from "./editor.js";
import { keepForms, showLeft } from "./kept.js";

const form = document.getElementById("editor");

/** Go to the next place in a list of them, from where the focus is. */
function nextSection(editor) {
  const fields = editor.fields();
  fields[(fields.indexOf(document.activeElement) + 1) % fields.length].focus();
}

/** Select the next blank of a template: [side], [ ] or ___. */
function nextBlank(editor) {
  const fields = editor.fields();
  const at = Math.max(0, fields.indexOf(document.activeElement));
  for (let step = 0; step <= fields.length; step += 1) {
    const field = fields[(at + step) % fields.length];
    const from = step === 0 && field === document.activeElement ? field.selectionEnd : 0;
    const found = /\[[^\]\n]*\]|_{3,}/.exec(field.value.slice(from));
    if (!found) continue;
    field.focus();
    field.setSelectionRange(from + found.index, from + found.index + found[0].length);
    return;
  }
}

function insert(field, text) {
  const lead = field.value && !field.value.slice(0, field.selectionStart).endsWith("\n") && field.selectionStart ? "\n" : "";
  field.setRangeText(lead + text, field.selectionStart, field.selectionEnd, "end");
  field.focus();
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

function edit() {
  const editor = new Editor(form);
  const does = { "next-section": () => nextSection(editor), "next-blank": () => nextBlank(editor) };
  // A button takes no focus: the keys go on from where one types.
  for (const button of form.querySelectorAll("[data-does^=next]")) {
    button.addEventListener("pointerdown", (event) => event.preventDefault());
    button.addEventListener("click", () => does[button.dataset.does]());
  }
  form.addEventListener("change", (event) => {
    const select = event.target;
    if (select.matches(".blocks") && select.value) insert(select.closest(".section").querySelector("textarea"), select.value);
    if (select.id === "add-section" && select.value) editor.field(select.value, select.selectedOptions[0].textContent).focus();
    if (select.matches(".blocks, #add-section")) select.value = "";
  });
  document.addEventListener("ris:refreshed", () => Number(document.getElementById("stored")?.dataset.version ?? 0) !== Number(editor.version) && editor.compare());
  document.addEventListener("ris:ended", () => editor.end());
  document.addEventListener("visibilitychange", () => document.hidden && editor.save());
  window.addEventListener("online", () => editor.tries && editor.later(0));
  window.addEventListener("beforeunload", (event) => !editor.leaving && !editor.loggedOut && editor.changed().length && event.preventDefault());
  // A page that the browser takes out of its memory is left no more.
  window.addEventListener("pageshow", () => (editor.leaving = false));
}

// The keys F1 to F12 are obeyed where one types, too.
document.addEventListener("keydown", (event) => {
  if (!/^F\d+$/.test(event.key) || !event.target.closest("textarea, select, input:not([type=checkbox], [type=radio])")) return;
  const pressed = document.querySelector(`main [data-key="${event.key}"]`);
  if (pressed) (event.preventDefault(), pressed.click());
});
keepForms();
if (form) edit();
for (const place of document.querySelectorAll("[data-left]")) showLeft(place);
