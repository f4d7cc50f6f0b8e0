// A page that moves: when the stream says that something changed, the page is fetched anew and its parts are replaced.
import { drawAll, updateChart } from "./charts.js";

const SECONDS_WITHOUT_NEWS = 30; // ages grow and engines become stale without any change of a file
const SECONDS_TO_LISTEN_AGAIN = 10;
let running = false;
let again = false;

export function refreshOnChange() {
  const head = document.querySelector("[data-live]");
  if (!head) return;
  let state = "";
  const tell = (text) => {
    const place = document.getElementById("moving");
    if (place && text !== state) place.textContent = ` · ${(state = text)}`;
  };
  const news = head.dataset.notice ? () => (document.getElementById(head.dataset.notice).hidden = false) : refresh;
  const listen = () => {
    const stream = new EventSource("/api/ml/stream");
    stream.addEventListener("hello", () => tell("moves by itself"));
    stream.addEventListener("error", () => {
      tell("the lab does not answer; what is shown is as it was");
      // a browser gives up for good where it was refused
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, SECONDS_TO_LISTEN_AGAIN * 1000);
    });
    for (const topic of head.dataset.live.split(" ")) stream.addEventListener(topic, news);
  };
  listen();
  if (head.dataset.notice) return;
  setInterval(() => document.hidden || refresh(), (Number(head.dataset.seconds) || SECONDS_WITHOUT_NEWS) * 1000);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}

async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      const response = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (response.ok) replace(new DOMParser().parseFromString(await response.text(), "text/html"));
    } while (again);
  } catch {
    // the lab is away for a moment; the next change or the next half minute tries anew
  } finally {
    running = false;
  }
}

function replace(page) {
  for (const old of document.querySelectorAll("[data-refresh]")) {
    const now = page.getElementById(old.id);
    if (now) morph(old, now);
  }
  drawAll(document);
}

// What is equal stays as it is: focus, selection, open details and drawn charts survive.
function morph(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.matches?.("figure[data-chart]")) {
    updateChart(old, now);
    const [before, after] = [old, now].map((figure) => figure.querySelector(".alternative-body"));
    if (before && after) morph(before, after);
    return;
  }
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
    old.replaceWith(document.importNode(now, true));
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = now.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (name !== "open" && !now.hasAttribute(name)) old.removeAttribute(name);
  const [before, after] = [[...old.childNodes], [...now.childNodes]];
  for (const [place, child] of after.entries()) {
    if (place < before.length) morph(before[place], child);
    else old.append(document.importNode(child, true));
  }
  for (const child of before.slice(after.length)) child.remove();
}
