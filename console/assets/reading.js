// The report page: saves as one types, keeps in the tab what is not saved yet, and shows both texts where another browser was faster.
import { drop, keep, keepForms, kept } from "./drafts.js";
import { connection } from "./live.js";

const PAUSE = 1500; // ms without a key, after which it is saved
const AGAIN = [1000, 2000, 4000, 8000]; // ms between tries while the server is away
const form = document.getElementById("editor");

class Refused extends Error {}
class Crossed extends Error {}
class LoggedOut extends Error {}

const clean = (text) => text.replace(/\r\n/g, "\n").trim();

class Editor {
  constructor(form) {
    this.form = form;
    this.name = form.dataset.report;
    this.path = `/reading/reports/${this.name}`;
    this.version = form.dataset.version;
    this.state = document.getElementById("save-state");
    this.trouble = document.getElementById("save-trouble");
    this.places = document.getElementById("sections");
    this.tries = 0;
    this.timer = 0;
    this.saving = null;
    this.stopped = false;
    this.loggedOut = false;
    for (const field of this.fields()) field.dataset.stored = clean(field.dataset.stored);
    form.addEventListener("input", (event) => event.target.matches("[data-section]") && this.typed());
    form.addEventListener("submit", (event) => this.submitted(event));
    for (const told of this.places.querySelectorAll("[data-theirs]")) this.offered(told);
    const left = kept(this.name);
    if (this.crossed()) this.show("crossed");
    else if (left) this.restore(left);
    else if (this.changed().length) this.typed();
  }

  fields() {
    return [...this.places.querySelectorAll("[data-section]")];
  }

  changed() {
    return this.fields().filter((field) => clean(field.value) !== field.dataset.stored);
  }

  crossed() {
    return this.places.querySelector(".both-texts") !== null;
  }

  show(state) {
    this.state.className = `save-state ${state}`;
    this.state.textContent = this.form.dataset[state];
  }

  warn(text) {
    this.trouble.textContent = text;
    this.trouble.hidden = !text;
  }

  // What is typed is kept at once, and sent after a pause.

  typed() {
    const changed = this.changed();
    if (!changed.length && !this.saving) return this.settled();
    const sections = changed.map((field) => ({ code: field.dataset.section, title: this.title(field), text: field.value, stored: field.dataset.stored }));
    keep(this.name, { sections });
    if (this.stopped) return;
    this.show(this.tries ? "here" : "unsaved");
    this.later(this.tries ? AGAIN[Math.min(this.tries, AGAIN.length) - 1] : PAUSE);
  }

  settled() {
    drop(this.name);
    this.show("saved");
    return true;
  }

  later(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), pause);
  }

  /** Save now. True when everything is stored. */
  async save() {
    clearTimeout(this.timer);
    while (this.saving) await this.saving;
    if (this.crossed() || this.stopped) return false;
    const changed = this.changed();
    if (!changed.length) return this.settled();
    this.show("saving");
    this.saving = this.send(changed);
    const done = await this.saving;
    this.saving = null;
    if (done) this.typed();
    return done && !this.changed().length;
  }

  async send(changed) {
    const sent = new Map(changed.map((field) => [field, clean(field.value)]));
    try {
      const answer = await this.post(sent);
      for (const [field, text] of sent) field.dataset.stored = text;
      this.seen(answer.version);
      this.tries = 0;
      this.warn("");
      connection("there");
      return true;
    } catch (error) {
      this.failed(error);
      return false;
    }
  }

  async post(sent, again = false) {
    const body = new URLSearchParams({ csrf: this.form.elements.csrf.value, version: this.version });
    for (const [field, text] of sent) {
      body.append("code", field.dataset.section);
      body.append(`title.${field.dataset.section}`, this.title(field));
      body.append(`section.${field.dataset.section}`, text);
    }
    const how = { method: "POST", body, redirect: "manual", headers: { Accept: "application/json" }, keepalive: String(body).length < 60000 };
    const answer = await fetch(`${this.path}/write`, how);
    if (answer.type === "opaqueredirect" || answer.status === 401) throw new LoggedOut();
    if (answer.status >= 500) throw new TypeError("the server can't");
    const json = answer.headers.get("content-type")?.startsWith("application/json");
    // The person has logged in anew in another tab: this page's token is of before.
    if (answer.status === 403 && !json && !again && (await this.renewed())) return this.post(sent, true);
    if (!json) throw new Refused(this.form.dataset.refused);
    const said = await answer.json();
    if (answer.ok) return said;
    if (said.present?.draft && said.present.version !== this.version) throw new Crossed("", { cause: said.present });
    throw new Refused(said.refused);
  }

  async renewed() {
    const answer = await fetch(location.href, { redirect: "manual" });
    if (answer.type === "opaqueredirect") throw new LoggedOut();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [fresh, body] = [page.querySelector("input[name=csrf]")?.value, page.body.dataset];
    if (!fresh || body.user !== document.body.dataset.user) throw new LoggedOut();
    for (const input of document.querySelectorAll("input[name=csrf]")) input.value = fresh;
    return true;
  }

  failed(error) {
    if (error instanceof Crossed) return this.merge(error.cause);
    if (error instanceof LoggedOut) return connection("ended");
    if (error instanceof Refused) {
      this.show("refused");
      return this.warn(error.message);
    }
    this.tries += 1;
    this.show("here");
    connection("lost");
    this.later(AGAIN[Math.min(this.tries, AGAIN.length) - 1]);
  }

  seen(version) {
    this.version = version;
    this.form.elements.version.value = version;
  }

  /** The session has ended: what isn't stored is kept, and given back when the page is loaded after a login. */
  end() {
    clearTimeout(this.timer);
    this.stopped = this.loggedOut = true;
    this.typed();
  }

  // Another browser has written too.

  /** Learn what is stored now. */
  async compare() {
    if (this.saving || this.stopped) return;
    const answer = await fetch(`${this.path}/text`, { redirect: "manual", headers: { "X-Ris-By-Itself": "1" } }).catch(() => null);
    if (!answer?.ok || this.saving) return;
    const present = await answer.json();
    if (present.draft) return void (Number(present.version) > Number(this.version) && this.merge(present));
    if (!this.changed().length) return location.reload();
    this.stopped = true;
    this.show("refused");
    this.warn(this.form.dataset.takenOver);
  }

  /** Put in what is stored now; where both have changed a section, both texts are shown. */
  merge(present) {
    this.seen(present.version);
    const theirs = new Map(present.sections.map((section) => [section.code, section]));
    for (const section of present.sections) this.field(section.code, section.title);
    for (const field of this.fields()) {
      const text = clean(theirs.get(field.dataset.section)?.text ?? "");
      const mine = clean(field.value);
      if (text === field.dataset.stored) continue;
      if (mine === field.dataset.stored) field.value = text;
      else if (mine !== text) this.both(field, text, present.by);
      field.dataset.stored = text;
    }
    this.typed();
    if (this.crossed()) this.show("crossed");
    else this.later(0);
  }

  both(field, text, by) {
    const place = field.closest(".section");
    place.querySelector(".both-texts")?.remove();
    const box = document.getElementById("both-texts").content.firstElementChild.cloneNode(true);
    const heading = box.querySelector("[data-by]");
    if (by) heading.textContent = heading.dataset.by.replace("{who}", by);
    box.querySelector(".theirs").textContent = text || "–";
    box.addEventListener("click", (event) => {
      const takes = event.target.closest("[data-takes]")?.dataset.takes;
      if (!takes) return;
      if (takes === "theirs") field.value = text;
      if (takes === "both") field.value = `${clean(field.value)}\n\n${text}`;
      box.remove();
      field.focus();
      this.typed();
      if (this.crossed()) this.show("crossed");
      else this.save();
    });
    place.append(box);
  }

  /** What the server has shown beside a text that a form could not save, to be chosen from. */
  offered(told) {
    const field = told.closest(".section").querySelector("[data-section]");
    told.remove();
    this.both(field, field.dataset.stored, "");
  }

  restore(left) {
    for (const { code, title, text, stored } of left.sections) {
      const field = this.field(code, title);
      const [present, mine] = [field.dataset.stored, clean(text)];
      field.value = text;
      if (stored !== present && mine !== present) this.both(field, present, "");
    }
    this.typed();
    if (this.crossed()) this.show("crossed");
    else this.later(0);
  }

  // Sections

  title(field) {
    return field.closest(".section").querySelector("[name^='title.']").value;
  }

  /** The field of a section, made if there is none. */
  field(code, title) {
    const known = this.fields().find((field) => field.dataset.section === code);
    if (known) return known;
    const place = document.getElementById("new-section").content.firstElementChild.cloneNode(true);
    const field = place.querySelector("textarea");
    const [named, titled, label] = [place.querySelector("[name=code]"), place.querySelector("[name^='title.']"), place.querySelector("label")];
    Object.assign(named, { value: code });
    Object.assign(titled, { name: `title.${code}`, value: title });
    Object.assign(label, { htmlFor: `s-${code}`, textContent: title });
    Object.assign(field, { name: `section.${code}`, id: `s-${code}` });
    field.dataset.section = code;
    field.dataset.stored = "";
    this.places.append(place);
    document.querySelector(`#add-section option[value="${CSS.escape(code)}"]`)?.remove();
    return field;
  }

  // Signing

  /** Whether what stands here is what is stored; what another browser has written meanwhile is put in, to be read before it is signed. */
  async isWhatIsStored() {
    const answer = await fetch(`${this.path}/text`, { redirect: "manual" }).catch(() => null);
    if (!answer?.ok) return answer !== null || void connection("lost");
    const present = await answer.json();
    if (!present.draft || present.version === this.version) return true;
    const read = JSON.stringify(this.fields().map((field) => clean(field.value)));
    this.merge(present);
    return !this.crossed() && read === JSON.stringify(this.fields().map((field) => clean(field.value)));
  }

  async submitted(event) {
    event.preventDefault();
    const pressed = event.submitter;
    const stored = (await this.save()) && (pressed?.dataset.does === "save" || (await this.isWhatIsStored()));
    if (pressed?.dataset.does === "save" || !stored) return void (this.crossed() && this.places.querySelector("[data-takes]").focus());
    const unadded = !pressed?.hasAttribute("formaction") && [...findings.querySelectorAll("[name^='finding.']")].find((field) => field.value.trim());
    if (unadded) return void (this.warn(this.form.dataset.unadded), unadded.focus());
    leaveBy(this.form, pressed);
  }
}

const findings = document.getElementById("findings");
let leaving = false;

/** Send a form as the pressed button says, which the browser leaves this page for. */
function leaveBy(sent, pressed) {
  leaving = true;
  sent.append(Object.assign(document.createElement("input"), { type: "hidden", name: pressed?.name ?? "", value: pressed?.value ?? "" }));
  if (pressed?.hasAttribute("formaction")) sent.action = pressed.formAction;
  sent.classList.add("busy-now");
  sent.submit();
}

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
  findings.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await editor.save()) leaveBy(event.target, event.submitter);
  });
  document.addEventListener("ris:refreshed", () => Number(document.getElementById("stored")?.dataset.version ?? 0) !== Number(editor.version) && editor.compare());
  document.addEventListener("ris:ended", () => editor.end());
  document.addEventListener("visibilitychange", () => document.hidden && editor.save());
  window.addEventListener("online", () => editor.tries && editor.later(0));
  window.addEventListener("beforeunload", (event) => !leaving && !editor.loggedOut && editor.changed().length && event.preventDefault());
}

/** What was typed here and could not be saved, on a page that has no editor any more: to be copied, then discarded. */
function showLeft(place) {
  const left = kept(place.dataset.left);
  if (!left) return;
  place.querySelector("pre").textContent = left.sections.map((section) => `${section.title}\n${clean(section.text)}`).join("\n\n");
  place.hidden = false;
  place.querySelector("button").addEventListener("click", () => (drop(place.dataset.left), place.remove()));
}

// The keys F1 to F12 are obeyed where one types, too.
document.addEventListener("keydown", (event) => {
  if (!/^F\d+$/.test(event.key) || !event.target.closest("textarea, select, input:not([type=checkbox], [type=radio])")) return;
  const pressed = document.querySelector(`main [data-key="${event.key}"]`);
  if (pressed) (event.preventDefault(), pressed.click());
});
for (const settled of document.querySelectorAll("[data-settled]")) drop(settled.dataset.settled);
if (form) edit();
for (const place of document.querySelectorAll("[data-left]")) showLeft(place);
keepForms();
