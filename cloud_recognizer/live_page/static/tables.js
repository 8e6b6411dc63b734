// Rows that stay the same elements while their cells change, so that focus and reading place last.

import { rate, silentSince } from "./state.js";
import { legible } from "./timeline.js";

const SILENT_MS = 10_000;
const MAX_IN_VIEW = 50;

// Make `body` have a row for each item, in their order; key(item) names its row.
function fill(body, items, key, make, update) {
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    let row = rows.get(key(item));
    if (!row) {
      row = make(item);
      row.dataset.key = key(item);
    }
    rows.delete(key(item));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    update(row.cells, item, row);
  });
  for (const row of rows.values()) row.remove();
}

function newRow(classes) {
  const row = document.createElement("tr");
  classes.forEach((name, index) => {
    const cell = document.createElement(index ? "td" : "th");
    if (!index) cell.scope = "row";
    if (name) cell.className = name;
    row.append(cell);
  });
  return row;
}

function say(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

export function swatch(colour) {
  const element = document.createElement("span");
  element.className = "swatch";
  element.style.background = legible(colour ?? "#888888");
  return element;
}

function sayExpression(cell, face, colours, text) {
  if (cell.dataset.said === text) return;
  cell.dataset.said = text;
  cell.replaceChildren(swatch(colours[face.expression]), text);
}

const percent = (share) => `${Math.round(100 * share)}%`;

function ago(ms) {
  const seconds = Math.max(Math.round(ms / 1000), 0);
  if (seconds < 2) return "now";
  return seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}

// onPicture(device id): null where no picture may be made.
export function showDevices(body, devices, colours, nowMs, onPicture) {
  const make = (device) => {
    const row = newRow(["", "", "number", "number", "number", "number", "pictures"]);
    row.cells[0].textContent = device.id;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Make one";
    button.setAttribute("aria-label", `Make a synthetic picture of the next face of ${device.id}`);
    button.addEventListener("click", () => onPicture?.(device.id));
    row.cells[6].append(button);
    return row;
  };
  fill(body, devices, (device) => device.id, make, (cells, device, row) => {
    const { last } = device;
    if (last) sayExpression(cells[1], last, colours, `${last.expression}, ${percent(last.probability)}`);
    else say(cells[1], device.faces ? "" : `no face since ${silentSince(device)}`);
    say(cells[2], String(device.tracks.size));
    say(cells[3], rate(device, nowMs).toFixed(1));
    say(cells[4], device.faces.toLocaleString());
    say(cells[5], device.faces ? ago(nowMs - device.seenMs) : "connected");
    cells[6].hidden = !onPicture;
    row.classList.toggle("silent", nowMs - device.seenMs > SILENT_MS);
  });
}

// Returns how many faces there are, of which MAX_IN_VIEW are shown at most.
export function showFaces(body, devices, colours, nowMs) {
  const faces = devices.flatMap((device) =>
    [...device.tracks.values()].map((face) => ({ ...face, device: device.id })));
  const make = (face) => {
    const row = newRow(["", "", "", "", "number"]);
    row.cells[0].textContent = face.device;
    row.cells[1].textContent = face.track;
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.append(document.createElement("i"));
    row.cells[3].append(bar, document.createElement("span"));
    return row;
  };
  const order = (a, b) => a.device.localeCompare(b.device) || a.key.localeCompare(b.key, "en", { numeric: true });
  const shown = faces.sort(order).slice(0, MAX_IN_VIEW);
  fill(body, shown, (face) => `${face.device}/${face.key}`, make, (cells, face) => {
    sayExpression(cells[2], face, colours, face.expression);
    const [bar, text] = cells[3].children;
    bar.firstChild.style.width = `${100 * face.probability}%`;
    bar.firstChild.style.background = legible(colours[face.expression] ?? "#888888");
    say(text, percent(face.probability));
    say(cells[4], ago(nowMs - face.seenMs));
  });
  return faces.length;
}
