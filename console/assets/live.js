// Server-sent events say what kind of thing has changed; the page is then asked for anew, and each `data-part` of it replaced.
// They also say when the session has ended: then nothing of a patient stays here.
const away = document.getElementById("away");
const kinds = document.body.dataset.live.trim();
const others = new BroadcastChannel("ris-session"); // the other tabs of this browser
const UNSEEN = 10_000; // ms after which a page that nobody looks at listens no more: a browser has few connections to a server
const GONE = [403, 404, 410];
let waiting = false;
let asking = false;
let lost = false;
let listening = null;
let due = 0;
let held = 0;
let refreshedAt = 0;
let over = false; // the session has ended
// What a page that tells of a refusal came with in its fields: another page doesn't have it.
const typed = new Map();
if (document.getElementById("errors")) {
  for (const field of document.querySelectorAll("[data-part] :is(textarea, input:not([type=hidden], [type=checkbox], [type=radio]))[id]")) typed.set(field.id, field.value);
}
let gone = false; // what the page shows is not there any more, or not for this person

function say(text, back) {
  away.textContent = text;
  away.classList.toggle("back", Boolean(back));
  away.hidden = !text;
}

/** The connection to the server is gone (for `reason`: lost or ended), or there again. Autosave tells it too. */
export function connection(state) {
  if (over) return;
  if (state === "ended") {
    end();
  } else if (state === "lost" && !lost) {
    lost = true;
    say(away.dataset.lost);
  } else if (state === "there" && lost) {
    lost = false;
    say(away.dataset.back, true);
    setTimeout(() => lost || say(""), 4000);
  }
}

function quiet() {
  listening?.close();
  listening = null;
}

/** Empty the page, but for where to log in. What was typed into a report is kept in the tab already (drafts.js). */
function end() {
  over = true;
  quiet();
  document.dispatchEvent(new CustomEvent("ris:ended"));
  say(document.querySelector("main [data-ended]")?.dataset.ended ?? away.dataset.ended);
  const link = Object.assign(document.createElement("a"), { href: "/login?next=" + encodeURIComponent(location.pathname + location.search), textContent: away.dataset.logIn });
  away.append(" ", link);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const shown of document.querySelectorAll("main, #keys-here")) shown.replaceChildren();
  for (const field of document.querySelectorAll("header input[type=search]")) field.value = "";
  document.title = "fhir-ris";
  others.postMessage("ended");
}

/** Show what the server says instead: that this can't be shown any more, and why. */
function replace(main, title) {
  if (!main) return; // it isn't the server who speaks
  gone = true;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const shown = document.importNode(main, true);
  document.querySelector("main").replaceWith(shown);
  document.title = title;
  shown.focus();
}

/** Whether somebody has changed a field from what the page came with. */
function altered(field) {
  if (field.matches("[type=checkbox], [type=radio]")) return field.checked !== field.defaultChecked;
  if (!field.matches("select")) return field.value !== field.defaultValue;
  const options = [...field.options];
  const were = options.filter((option) => option.defaultSelected);
  if (!were.length && !field.multiple) were.push(...options.slice(0, 1));
  return options.some((option) => option.selected !== were.includes(option));
}

/** Whether somebody fills in a form of a part: it must not be made anew under their hands. */
function inUse(part) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const form = focused?.closest("form");
  const fields = [...part.querySelectorAll("input:not([type=hidden]), textarea, select")];
  return part.querySelector("dialog[open]") || fields.some((field) => field === focused || (form && field.form === form) || altered(field));
}

/** Put what is new in the place of a part; the focus stays where it can't be mistaken. */
export function renew(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const made = document.importNode(fresh, true);
  const same = focused && !focused.id ? [...made.querySelectorAll(focused.localName)].filter((element) => element.isEqualNode(focused)) : [];
  for (const field of made.querySelectorAll("textarea, input")) if (!field.value && typed.get(field.id)) field.defaultValue = typed.get(field.id);
  part.replaceWith(made);
  if (focused?.id) document.getElementById(focused.id)?.focus();
  else if (same.length === 1) same[0].focus();
}

/** Ask again once nobody fills in anything any more. */
function later() {
  held ||= setTimeout(() => {
    held = 0;
    if ([...document.querySelectorAll("[data-part]")].some(inUse)) later();
    else refresh();
  }, 2000);
}

/** Ask for this page anew, and show what is new on it. Parts that somebody works in are left for later. */
export async function refresh() {
  if (asking) return void (waiting = true);
  asking = true;
  waiting = false;
  try {
    const answer = await fetch(location.href, { headers: { "X-Ris-By-Itself": "1" }, cache: "no-store" });
    if (answer.status === 401) return connection("ended");
    if (!answer.ok && !GONE.includes(answer.status)) return;
    connection("there");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) return replace(page.querySelector("main"), page.title);
    if (over || gone) return void (page.body.dataset.user === document.body.dataset.user && location.reload());
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (!fresh || fresh.isEqualNode(part)) continue;
      if (inUse(part)) later();
      else renew(part, fresh);
    }
    document.dispatchEvent(new CustomEvent("ris:refreshed"));
  } catch {
    connection("lost");
  } finally {
    asking = false;
  }
  if (waiting) setTimeout(refresh, 2000);
}

/** Refresh, at most as often as the page's `data-live-every` (seconds) says: pages that are dear to make say so. */
function changed() {
  const every = 1000 * Number(document.querySelector("[data-live-every]")?.dataset.liveEvery ?? 0);
  const wait = refreshedAt + every - Date.now();
  if (due) return;
  due = setTimeout(() => {
    due = 0;
    refreshedAt = Date.now();
    refresh();
  }, Math.max(0, wait));
}

function listen() {
  if (listening || over) return;
  const source = (listening = new EventSource(`/events?of=${encodeURIComponent(kinds)}&since=${document.body.dataset.askedAt}`));
  source.addEventListener("open", () => lost && (kinds ? refresh() : connection("there")));
  if (kinds) source.addEventListener("changed", changed);
  source.addEventListener("ended", () => connection("ended"));
  source.addEventListener("enough", quiet); // other pages of this session listen; this one asks when it is looked at again
  source.addEventListener("error", () => {
    connection("lost");
    // The browser tries again by itself, unless it was told not to.
    if (source.readyState !== EventSource.CLOSED || source !== listening) return;
    quiet();
    setTimeout(() => !document.hidden && (kinds && refresh(), listen()), 3000);
  });
}

/** Listen for the kinds that `data-live` of the body names, and for the end of the session, while somebody looks at the page. */
export function follow() {
  let unseen = 0;
  listen();
  document.addEventListener("visibilitychange", () => {
    clearTimeout(unseen);
    if (document.hidden) return void (unseen = setTimeout(quiet, UNSEEN));
    if (kinds) refresh();
    listen();
  });
  // A session has ended in another tab: perhaps it was this one's too.
  others.addEventListener("message", () => {
    quiet();
    if (kinds) refresh();
    listen();
  });
}
