// Draws anew what has changed, and says when the page's own server does not answer.
"use strict";

const POLL_MILLISECONDS = 2000;
const DEADLINE_MILLISECONDS = 10000;
const main = document.getElementById("now");
const pulse = document.getElementById("pulse");
const drawn = new Map(); // what each section was drawn from, by its id
let heard = Date.now();

function age(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60]])
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

function tellAges(root) {
  for (const each of root.querySelectorAll("time[data-at]")) {
    each.dataset.clock ??= each.textContent;
    each.textContent = `${each.dataset.clock} · ${age(Date.now() / 1000 - each.dataset.at)}`;
  }
}

// What has the focus is found again in what is drawn anew: the same text that leads to the same.
function sameAs(old, section) {
  const like = [...section.querySelectorAll(old.localName)];
  return like.find((each) => each.textContent === old.textContent
    && each.getAttribute("href") === old.getAttribute("href"));
}

function draw(text) {
  const told = new DOMParser().parseFromString(text, "text/html");
  for (const section of told.querySelectorAll("section[id]")) {
    const html = section.outerHTML;
    if (drawn.get(section.id) === html) continue;
    const old = document.getElementById(section.id);
    const focused = old?.contains(document.activeElement) ? document.activeElement : null;
    const fresh = document.importNode(section, true);
    old ? old.replaceWith(fresh) : main.append(fresh);
    drawn.set(section.id, html);
    if (!focused) continue;
    const again = sameAs(focused, fresh);
    if (again) again.focus({ preventScroll: true });
  }
}

// Nothing moves beneath somebody who is copying; a command that has the focus is selected anew.
function isSelecting() {
  const selection = getSelection();
  if (selection.isCollapsed || !main.contains(selection.anchorNode)) return false;
  return !(document.activeElement.matches("code.command")
    && document.activeElement.contains(selection.anchorNode));
}

async function poll() {
  try {
    const signal = AbortSignal.timeout(DEADLINE_MILLISECONDS);
    const answer = await fetch(`now${location.search}`, { signal, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    heard = Date.now();
    if (!isSelecting()) draw(text);
    document.body.classList.remove("silent");
  } catch {
    document.body.classList.add("silent");
  }
  setTimeout(poll, POLL_MILLISECONDS);
}

function tick() {
  tellAges(main);
  const clock = new Date(heard).toTimeString().slice(0, 8);
  const silent = document.body.classList.contains("silent");
  const held = isSelecting() ? "held while text is selected" : `as of ${clock}`;
  const text = silent
    ? `The page's server has not answered since ${clock}. What is shown was known then.` : held;
  if (pulse.textContent !== text) pulse.textContent = text;
}

function select(element) {
  getSelection().selectAllChildren(element);
}

main.addEventListener("focusin", (event) => {
  if (event.target.matches("code.command")) select(event.target);
});
main.addEventListener("focusout", (event) => {
  if (event.target.matches("code.command")) getSelection().removeAllRanges();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const filter = document.getElementById("q");
  if (event.target === filter) {
    if (event.key === "Escape") filter.blur();
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    filter.focus();
    filter.select();
  } else if (event.key === "u") document.getElementById("unwell").click();
  else if (event.key === "a") location.search = "";
});

for (const section of main.querySelectorAll("section[id]")) drawn.set(section.id, section.outerHTML);
tick();
setInterval(tick, 1000);
setTimeout(poll, 500);
