"use strict";
// Shows the events of one user's messages, newest first. Whatever a client has sent is written as text, never as HTML.
const LIMIT = 200;
const table = document.getElementById("follow");
if (table) {
  const body = table.tBodies[0];
  const state = document.getElementById("follow-state");
  const again = document.getElementById("follow-again");
  const pause = document.getElementById("follow-pause");
  const prices = document.getElementById("follow-prices");
  const texts = table.dataset;
  let source = null;
  let isHeld = false;
  let leftOut = 0;

  const say = (text) => { state.textContent = leftOut ? `${text} (${texts.leftOut} ${leftOut})` : text; };

  function end(text) {
    source?.close();
    source = null;
    say(text);
    again.hidden = false;
  }

  function begin() {
    source?.close();
    again.hidden = true;
    leftOut = 0;
    source = new EventSource(prices?.checked ? `${texts.url}?prices=1` : texts.url);
    source.addEventListener("begin", () => say(texts.open));
    source.addEventListener("rows", (event) => show(JSON.parse(event.data)));
    source.addEventListener("end", (event) => {
      const reason = JSON.parse(event.data).reason;
      end(texts[reason] ?? texts.lost);
    });
    // Each start is in the audit log: a browser must not begin again by itself.
    source.onerror = () => end(texts.lost);
  }

  function show(message) {
    leftOut += message.left_out;
    say(texts.rows);
    if (isHeld) return;
    for (const row of message.rows) body.prepend(line(row));
    while (body.rows.length > LIMIT) body.deleteRow(-1);
  }

  function line(row) {
    const tr = document.createElement("tr");
    if (row.verdict !== "accepted") tr.className = "live-refused";
    const time = new Date(row.received_at_us / 1000);
    const clock = `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, "0")}`;
    const cells = [clock, row.message_type || "–", row.sequence || "–", row.size, row.verdict, `${row.age_ms} ms`, row.session_id];
    for (const text of cells) tr.insertCell().textContent = String(text);
    if (prices) {
      const code = document.createElement("code");
      code.textContent = row.payload ? JSON.stringify(row.payload) : "";
      tr.insertCell().append(code);
    }
    return tr;
  }

  pause.addEventListener("click", () => {
    isHeld = !isHeld;
    pause.setAttribute("aria-pressed", String(isHeld));
  });
  again.addEventListener("click", begin);
  prices?.addEventListener("change", begin);
  window.addEventListener("pagehide", () => source?.close());
  begin();
}
