"use strict";
// Asks every 2 s and replaces the parts that have changed; says when nobody answers.
const EVERY_MS = 2000, PATIENCE_MS = 5000;
const byId = (id) => document.getElementById(id);
const shown = new Map();
let updated = Number(document.body.dataset.updated) || null;
let heard = new Date();

function showAge() {
  const age = byId("age");
  if (!age || updated === null) return;
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - updated));
  age.textContent = seconds < 120 ? ` (${seconds} s ago)` : ` (${Math.round(seconds / 60)} min ago)`;
}

function show(page) {
  document.title = page.title;
  updated = page.updated;
  const said = byId("said");
  if (said.textContent !== page.said) said.textContent = page.said; // else it would be read out again
  said.className = `said ${page.kind}`;
  for (const [name, html] of Object.entries(page.parts)) {
    if (shown.get(name) === html) continue;
    byId(name).innerHTML = html; // escaped by the server; a script in it would not run (Content-Security-Policy)
    shown.set(name, html);
  }
  showAge();
}

async function look() {
  const gone = byId("gone");
  try {
    const answer = await fetch("/parts.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
    heard = new Date();
    gone.hidden = true;
  } catch {
    if (gone.hidden) {
      const since = heard.toISOString().slice(11, 19);
      gone.textContent = `No answer since ${since} UTC: what stands below is old. Does the coordinator run?`;
      gone.hidden = false;
    }
    showAge();
  }
  setTimeout(look, EVERY_MS);
}

showAge();
setTimeout(look, EVERY_MS);
