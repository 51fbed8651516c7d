"use strict";
// Asks every few seconds whether the terminal has come online, until it has or the page has been open for long.
const seen = document.getElementById("console-seen");
const until = Date.now() + 30 * 60 * 1000;

async function look() {
  try {
    const answer = await fetch(seen.dataset.url, { redirect: "manual", cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const found = await answer.json();
    if (seen.textContent !== found.text) seen.textContent = found.text;
    seen.dataset.state = found.state;
  } catch {
    seen.textContent = seen.dataset.lost;
  }
  if (seen.dataset.state !== "online" && Date.now() < until) setTimeout(look, 2000);
}

if (seen) setTimeout(look, 2000);
