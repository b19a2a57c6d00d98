"use strict";
// The newest tasks of one user, kept current by the event stream. Texts of tasks only ever become text nodes. A token is
// kept for this tab only, and is never part of an address.

const SHOWN = 50;
const PAUSE = 1000;
const KEY = "taskd.token";
const NEVER = [1008, 4000, 4001, 4003];
const user = new URLSearchParams(location.search).get("user");
const rows = new Map();
const body = document.getElementById("tasks");
const connection = document.getElementById("connection");
const fault = document.getElementById("fault");
const login = document.getElementById("login");
let cursor = null;

function at(path, query = {}) {
  const pairs = new URLSearchParams(user ? { user, ...query } : query).toString();
  return path + (pairs ? `?${pairs}` : "");
}

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
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { method, headers };
  if (content) {
    options.body = JSON.stringify(content);
    headers["Content-Type"] = "application/json";
  }
  try {
    const answer = await fetch(at(path), options);
    const value = answer.status === 204 ? null : await answer.json();
    if (answer.status === 401) ask(value.detail);
    else if (!answer.ok) fault.value = value.detail;
    return answer.ok ? value : null;
  } catch (error) {
    fault.value = String(error);
    return null;
  }
}

function ask(why) {
  sessionStorage.removeItem(KEY);
  login.hidden = false;
  connection.textContent = why;
}

// A socket tells no script why it was refused, so a call comes first: it asks for a token if one is needed.
async function follow() {
  if (await reload()) listen();
  else if (login.hidden) setTimeout(follow, PAUSE);
}

function listen() {
  const token = sessionStorage.getItem(KEY);
  const query = { client: `dashboard-${crypto.getRandomValues(new Uint32Array(2)).join("-")}` };
  if (cursor) query.after = cursor;
  const address = new URL(at("/ws", query), location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, token ? ["taskd.v1", `bearer.${token}`] : ["taskd.v1"]);
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data);
    cursor = message.cursor ?? cursor;
    if (message.type === "welcome") {
      connection.textContent = `live, as ${message.user}`;
      // What happened between the page of tasks and this welcome is in neither.
      if (message.recovered !== true) reload();
    } else if (message.type === "event") {
      if (message.event.type === "deleted") remove(message.event.task.id);
      else draw(message.event.task);
    }
  });
  socket.addEventListener("close", ({ code, reason }) => {
    if (code === 4003) ask(reason);
    else if (NEVER.includes(code)) connection.textContent = `closed: ${reason}`;
    else {
      connection.textContent = "connecting …";
      setTimeout(follow, PAUSE);
    }
  });
}

async function reload() {
  const page = await call("GET", "/tasks");
  if (page) for (const task of page.tasks.reverse()) draw(task);
  return page !== null;
}

document.getElementById("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  call("POST", "/tasks", { title: form.get("title"), kind: form.get("kind") });
});

login.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, new FormData(login).get("token").trim());
  login.reset();
  login.hidden = true;
  follow();
});

follow();
