// Server-sent events say what kind of thing has changed; the page is then asked for anew, and each `data-part` of it replaced.
const away = document.getElementById("away");
let waiting = false;
let asking = false;
let lost = false;
let listening = null;
let due = 0;
let refreshedAt = 0;

function say(text, back) {
  away.textContent = text;
  away.classList.toggle("back", Boolean(back));
  away.hidden = !text;
}

/** The connection to the server is gone (for `reason`: lost or ended), or there again. Autosave tells it too. */
export function connection(state) {
  if (state === "ended") {
    listening?.close();
    say(away.dataset.ended);
    const link = Object.assign(document.createElement("a"), { href: "/login?next=" + encodeURIComponent(location.pathname + location.search), textContent: " →" });
    away.append(link);
  } else if (state === "lost" && !lost) {
    lost = true;
    say(away.dataset.lost);
  } else if (state === "there" && lost) {
    lost = false;
    say(away.dataset.back, true);
    setTimeout(() => lost || say(""), 4000);
  }
}

const inUse = (part) => part.querySelector("dialog[open]") || (part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"));

/** Ask for this page anew, and show what is new on it. Parts that somebody types into are left for later. */
export async function refresh() {
  if (asking) return void (waiting = true);
  asking = true;
  waiting = false;
  try {
    const answer = await fetch(location.href, { headers: { "X-Ris-By-Itself": "1" }, cache: "no-store" });
    if (answer.status === 401) return connection("ended");
    if (!answer.ok) return;
    connection("there");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (!fresh || fresh.isEqualNode(part)) continue;
      if (inUse(part)) {
        waiting = true;
        continue;
      }
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      part.replaceWith(document.importNode(fresh, true));
      if (focused) document.getElementById(focused)?.focus();
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

/** Listen for the kinds that `data-live` of the body names. */
export function follow() {
  const kinds = document.body.dataset.live.trim();
  if (!kinds) return;
  const begin = () => {
    listening = new EventSource(`/events?of=${encodeURIComponent(kinds)}&since=${document.body.dataset.askedAt}`);
    listening.addEventListener("open", () => lost && refresh());
    listening.addEventListener("changed", changed);
    listening.addEventListener("ended", () => connection("ended"));
    listening.addEventListener("error", () => {
      connection("lost");
      // The browser tries again by itself, unless it was told not to.
      if (listening.readyState === EventSource.CLOSED) setTimeout(() => lost && (refresh(), begin()), 3000);
    });
  };
  begin();
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}
