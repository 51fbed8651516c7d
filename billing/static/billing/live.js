"use strict";
// Looks for news every few seconds while somebody looks at the page; changes it only when there are some.
const live = document.getElementById("billing-live");
const lost = document.getElementById("billing-lost");
// Read out: what stands in the middle of the page is replaced, and nobody would hear of it.
const news = document.getElementById("billing-news");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(window.location.href, { headers: { "X-Billing-Part": "1" }, redirect: "manual", cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const part = document.createElement("div");
    part.innerHTML = await answer.text();
    const version = (parent) => parent.querySelector("[data-version]")?.dataset.version;
    if (version(part) !== version(live)) {
      live.replaceChildren(...part.childNodes);
      news.textContent = live.querySelector("h2").textContent;
    }
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
