// The editor of a report: saves as one types, keeps in the tab what is not saved yet, and shows both texts where another browser was faster.
import { base, both, clean, offered, undecided } from "./both.js";
import { drop, keep, kept, sending } from "./drafts.js";
import { connection, renew } from "./live.js";

const PAUSE = 1500; // ms without a key, after which it is saved
const AGAIN = [1000, 2000, 4000, 8000]; // ms between tries while the server is away

class Refused extends Error {}
class Crossed extends Error {}
class LoggedOut extends Error {}

export class Editor {
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
    this.obeying = false; // a button was pressed, and is not done with
    this.leaving = false; // the browser goes to another page
    for (const field of this.fields()) field.dataset.stored = clean(field.dataset.stored);
    form.addEventListener("input", (event) => event.target.matches("[data-section]") && this.typed());
    form.addEventListener("submit", (event) => this.submitted(event));
    offered(this.places, () => this.chosen());
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
    const sections = changed.map((field) => ({ code: field.dataset.section, title: this.title(field), text: field.value, stored: base(field) }));
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
    if (this.saving || this.stopped || this.leaving) return;
    const answer = await fetch(`${this.path}/text`, { redirect: "manual", headers: { "X-Ris-By-Itself": "1" } }).catch(() => null);
    // What has just been signed here is shown by the page that comes: loaded anew, this one would keep it from coming.
    if (!answer?.ok || this.saving || this.leaving) return;
    const present = await answer.json();
    if (present.draft) return void (Number(present.version) > Number(this.version) && this.merge(present));
    if (!this.changed().length) return location.reload();
    this.stopped = true;
    this.show("refused");
    this.warn(this.form.dataset.takenOver);
  }

  /** Put in what is stored now; where both have changed a section, both texts are shown. The sections that another has changed. */
  merge(present) {
    const changed = [];
    this.seen(present.version);
    const theirs = new Map(present.sections.map((section) => [section.code, section]));
    for (const section of present.sections) this.field(section.code, section.title);
    for (const field of this.fields()) {
      const text = clean(theirs.get(field.dataset.section)?.text ?? "");
      const mine = clean(field.value);
      if (text === field.dataset.stored) continue;
      if (mine !== text) changed.push(this.title(field));
      if (mine === field.dataset.stored) field.value = text;
      else if (mine !== text) both(field, text, { from: field.dataset.stored, by: present.by, chosen: () => this.chosen() });
      field.dataset.stored = text;
    }
    this.typed();
    if (this.crossed()) this.show("crossed");
    else this.later(0);
    return changed;
  }

  /** One of two texts was chosen. */
  chosen() {
    this.typed();
    if (this.crossed()) this.show("crossed");
    else this.save();
  }

  restore(left) {
    for (const { code, title, text, stored } of left.sections) {
      const field = this.field(code, title);
      const [present, mine] = [field.dataset.stored, clean(text)];
      field.value = text;
      if (stored !== present && mine !== present) both(field, present, { from: stored, chosen: () => this.chosen() });
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

  // Leaving the page by a button: signing, and what stands beside the text

  /** What another has written meanwhile is put in, and named: nobody signs what one has not seen. Nothing where nobody knows. */
  async learn() {
    const answer = await fetch(`${this.path}/text`, { redirect: "manual" }).catch(() => null);
    if (!answer) return void connection("lost");
    const present = answer.ok ? await answer.json() : {};
    if (!present.draft) return [];
    const texts = present.version === this.version ? [] : this.merge(present);
    const beside = present.beside === document.getElementById("beside").value ? [] : await this.beside();
    return beside && [...texts, ...beside];
  }

  /** Put in the structured findings and comparisons that are stored now, and say which came and went. */
  async beside() {
    const answer = await fetch(location.href, { headers: { "X-Ris-By-Itself": "1" } }).catch(() => null);
    if (!answer?.ok) return void connection(answer?.status === 401 ? "ended" : "lost");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const told = () => [...document.querySelectorAll("[data-beside]")].map((one) => one.dataset.beside);
    const before = told();
    for (const part of document.querySelectorAll("[data-part=findings], [data-part^=compared]")) {
      const fresh = page.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (fresh) renew(part, fresh);
    }
    const now = told();
    const changed = [...now.filter((one) => !before.includes(one)).map((one) => `+ ${one}`), ...before.filter((one) => !now.includes(one)).map((one) => `− ${one}`)];
    return changed.length ? changed : [this.form.dataset.beside];
  }

  async submitted(event) {
    if (this.leaving) return; // it is sent once: console.js
    event.preventDefault();
    if (this.obeying) return;
    this.obeying = true;
    await this.obey(event.submitter);
    this.obeying = false;
  }

  async obey(pressed) {
    const does = pressed?.dataset.does;
    const fields = [...document.querySelectorAll("#findings [name^='finding.']")];
    if (does === "add" && !fields.every((field) => field.reportValidity())) return;
    if (!(await this.save()) || does === "save") return void undecided(this.places);
    const changed = await this.learn();
    if (!changed || undecided(this.places)) return;
    const unadded = does === "sign" && fields.find((field) => field.value.trim());
    if (unadded) return void (this.warn(this.form.dataset.unadded), unadded.focus());
    if (does === "sign" && changed.length) return this.warn(this.form.dataset.meanwhile.replace("{what}", changed.join("; ")));
    if (does === "add") sending(`${this.name}/finding`);
    this.leave(pressed);
  }

  /** Send the form as the pressed button says; a copy of it, since the button itself may have been made anew meanwhile. */
  leave(pressed) {
    this.leaving = true;
    const button = pressed?.cloneNode(true) ?? document.createElement("button");
    button.hidden = true;
    this.form.append(button);
    this.form.requestSubmit(button);
    button.remove();
  }
}
