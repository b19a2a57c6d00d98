"use strict";
// The newest tasks of one user, kept current by the event stream. Texts of tasks only ever become text nodes.

const SHOWN = 50;
const user = new URLSearchParams(location.search).get("user");
const at = (path) => path + (user ? `?user=${encodeURIComponent(user)}` : "");
const rows = new Map();
const body = document.getElementById("tasks");
const connection = document.getElementById("connection");
const fault = document.getElementById("fault");

function cell(row, text, name) {
  const found = document.createElement("td");
  found.textContent = text;
  if (name) found.className = name;
  row.append(found);
}

function draw(task) {
  const known = rows.get(task.id);
  if (known && known.version >= task.version) return;
  const row = document.createElement("tr");
  cell(row, new Date(task.created_at).toLocaleTimeString());
  cell(row, task.kind);
  cell(row, task.title);
  cell(row, task.error && task.status !== "done" ? `${task.status}: ${task.error.message}` : task.status, task.status);
  cell(row, `${task.attempt} of ${task.max_attempts}`);
  cell(row, task.progress === null ? "" : `${Math.round(task.progress * 100)} % ${task.progress_note ?? ""}`);
  const buttons = document.createElement("td");
  if (["new", "scheduled", "running"].includes(task.status)) buttons.append(button("Cancel", task, "cancel"));
  if (["failed", "cancelled"].includes(task.status)) buttons.append(button("Retry", task, "retry"));
  row.append(buttons);
  if (known) known.row.replaceWith(row);
  else body.prepend(row);
  rows.set(task.id, { row, version: task.version });
  while (body.rows.length > SHOWN) remove([...rows].find(([, { row }]) => row === body.lastElementChild)[0]);
}

function remove(id) {
  rows.get(id)?.row.remove();
  rows.delete(id);
}

function button(text, task, verb) {
  const found = document.createElement("button");
  found.textContent = text;
  found.addEventListener("click", () => call("POST", `/tasks/${task.id}/${verb}`));
  return found;
}

async function call(method, path, content) {
  fault.value = "";
  const options = { method };
  if (content) Object.assign(options, { body: JSON.stringify(content), headers: { "Content-Type": "application/json" } });
  try {
    const answer = await fetch(at(path), options);
    const value = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) fault.value = value.detail;
    return answer.ok ? value : null;
  } catch (error) {
    fault.value = String(error);
    return null;
  }
}

async function reload() {
  const page = await call("GET", "/tasks");
  if (page) for (const task of page.tasks.reverse()) draw(task);
}

document.getElementById("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  call("POST", "/tasks", { title: form.get("title"), kind: form.get("kind") });
});

// EventSource reconnects by itself, and gives the last id that it saw.
const events = new EventSource(at("/events"));
events.addEventListener("welcome", (message) => {
  connection.textContent = `live, as ${JSON.parse(message.data).user}`;
  reload();
});
for (const type of ["created", "updated", "started", "progress", "retrying", "done", "failed", "cancelled"]) {
  events.addEventListener(type, (message) => draw(JSON.parse(message.data).task));
}
events.addEventListener("deleted", (message) => remove(JSON.parse(message.data).task.id));
events.addEventListener("error", () => { connection.textContent = "connecting …"; });
