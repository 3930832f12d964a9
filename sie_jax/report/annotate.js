"use strict";
// The page for annotators: one pair at a time, a key for each label, and a CSV file of what was decided.
const data = JSON.parse(document.getElementById("data").textContent);
const storage = "sie_jax.audit." + data.key;
const element = (id) => document.getElementById(id);
const made = (tag, text, parent, name) => {
  const one = document.createElement(tag);
  one.textContent = text;
  if (name) one.className = name;
  parent.append(one);
  return one;
};

// A label's key is the label itself where all are single digits, else its number from 1; and its first
// letter where no other label and no command has that.
const digits = data.labels.every((label) => /^[0-9]$/.test(label));
const keys = new Map();
data.labels.forEach((label, place) => {
  const number = digits ? label : String(place + 1);
  if (number.length === 1) keys.set(number, label);
});
const first = (label) => label[0].toLowerCase();
for (const label of data.labels) {
  const letter = first(label);
  const alone = data.labels.filter((other) => first(other) === letter).length === 1;
  if (alone && !/[0-9jku]/.test(letter)) keys.set(letter, label);
}

let at = 0;
let decided = {}; // the place of a row → its label
let past = []; // [place, what was decided before]
let kept = true; // whether the browser keeps what was decided
let saved = true; // whether the last file has all of it
try {
  const before = JSON.parse(localStorage.getItem(storage) || "null");
  if (before) {
    at = Math.min(before.at, data.rows.length - 1);
    decided = before.decided;
    saved = !Object.keys(decided).length;
  }
} catch { kept = false; }

function keep() {
  try {
    localStorage.setItem(storage, JSON.stringify({ at, decided }));
  } catch { kept = false; }
}

function tell(text) { element("told").textContent = text; }

function show() {
  const row = data.rows[at];
  const places = Object.keys(decided);
  const changed = places.filter((place) => decided[place] !== data.rows[place].label).length;
  element("progress").textContent = data.rows.length
    ? `${at + 1} of ${data.rows.length}; ${places.length} decided: ${changed} changed, ` +
      `${places.length - changed} confirmed`
    : "There are no labels to check.";
  element("bar").firstElementChild.style.width = `${(100 * places.length) / (data.rows.length || 1)}%`;
  const card = element("card");
  card.replaceChildren();
  if (!row) return;
  made("small", "query", card, "note");
  made("h2", row.query, card).dir = "auto";
  made("h3", row.title, card).dir = "auto";
  const list = made("dl", "", card);
  for (const [name, text] of row.further) {
    made("dt", name, list);
    made("dd", text, list).dir = "auto";
  }
  made("p", row.reason, card);
  const buttons = element("labels");
  buttons.replaceChildren();
  for (const label of data.labels) {
    const button = made("button", label + " ", buttons, decided[at] === label ? "chosen" : "");
    button.type = "button";
    button.setAttribute("aria-pressed", String(decided[at] === label));
    for (const [key, of] of keys) if (of === label) made("kbd", key, button);
    if (label === row.label) made("small", " as it is", button, "note");
    button.addEventListener("click", () => decide(label));
  }
}

function go(place) {
  at = Math.max(0, Math.min(place, data.rows.length - 1));
  keep();
  show();
}

function decide(label) {
  if (!data.rows.length) return;
  past.push([at, decided[at]]);
  decided[at] = label;
  saved = false;
  tell("");
  go(at + 1);
}

function undo() {
  const last = past.pop();
  if (!last) return tell("There is nothing to undo.");
  const [place, before] = last;
  if (before === undefined) delete decided[place];
  else decided[place] = before;
  saved = false;
  tell("");
  go(place);
}

// What a spreadsheet would run as a formula has an apostrophe in front, as in the audit's own CSV.
function cell(text) {
  const bare = text.replace(/^'+/, "");
  const safe = data.starts.some((start) => bare.startsWith(start)) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
}

function save() {
  const places = Object.keys(decided).map(Number).sort((one, other) => one - other);
  if (!places.length) return tell("Nothing is decided yet.");
  const lines = [["example_id", "query", "title", "label", "corrected_label"].join(",")];
  for (const place of places) {
    const row = data.rows[place];
    lines.push([row.example_id, row.query, row.title, row.label, decided[place]].map(cell).join(","));
  }
  const file = new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = data.name + ".corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
  tell(`${places.length} decisions are in ${link.download}, in your browser's folder for downloads.`);
}

const commands = [
  ["j", "next", () => go(at + 1), ["ArrowDown", "ArrowRight"]],
  ["k", "back", () => go(at - 1), ["ArrowUp", "ArrowLeft"]],
  ["Enter", "it is right", () => decide(data.rows[at].label), []],
  ["u", "undo", undo, []],
  ["Ctrl+S", "save the corrections", save, []],
];
for (const [key, text, act] of commands) {
  const button = made("button", text + " ", element("acts"));
  button.type = "button";
  made("kbd", key, button);
  button.addEventListener("click", act);
}
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
    event.preventDefault();
    return save();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return undefined;
  // Enter on a button that has the focus is a click on it
  if (event.key === "Enter" && event.target instanceof HTMLButtonElement) return undefined;
  const command = commands.find(([key, , , more]) => key === event.key || more.includes(event.key));
  const label = keys.get(event.key.toLowerCase());
  if (!command && label === undefined) return undefined;
  event.preventDefault();
  return command ? command[2]() : decide(label);
});
window.addEventListener("beforeunload", (event) => {
  if (!saved && !kept) event.preventDefault();
});
show();
if (!kept) tell("This browser keeps nothing for this page: save before you close it.");
