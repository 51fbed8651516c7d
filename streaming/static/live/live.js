"use strict";
// Brings the table anew every few seconds while somebody looks at the page; the address, and so the filter, stays.
const live = document.getElementById("live");
const lost = document.getElementById("live-lost");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(window.location.href, { headers: { "X-Live-Part": "1" }, redirect: "manual", cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const html = await answer.text();
    // Whoever goes through the table with the keyboard stays where they are.
    const key = live.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    live.innerHTML = html;
    if (key) live.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
    lost.hidden = true;
  } catch {
    lost.textContent = live.dataset.lost;
    lost.hidden = false;
  }
}

async function run() {
  await refresh();
  setTimeout(run, live.dataset.interval * 1000);
}

setTimeout(run, live.dataset.interval * 1000);
document.addEventListener("visibilitychange", refresh);
