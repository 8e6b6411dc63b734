// The last two minutes of each device as a ribbon: a bar a second, its parts the expressions' shares.

import { WINDOW_S } from "./state.js";

export const MAX_ROWS = 12;
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Timeline {
  #rows = new Map(); // by device: { name, canvas }
  #moment = null; // the second that is looked at

  constructor(element) {
    this.element = element;
    this.axis = document.createElement("div");
    this.axis.className = "axis";
    for (const text of ["2 min ago", "1 min ago", "now"]) {
      const label = document.createElement("span");
      label.textContent = text;
      this.axis.append(label);
    }
  }

  // Draw these devices, at most MAX_ROWS.
  draw(devices, colours, nowMs) {
    const now = Math.floor(nowMs / 1000);
    if (this.#moment !== null && this.#moment <= now - WINDOW_S) this.#moment = null;
    this.#keep(devices);
    for (const device of devices) this.#ribbon(this.#rows.get(device.id).canvas, device, colours, now);
  }

  // Mark a second, so many ago; returns it in words.
  lookAt(secondsAgo, devices, nowMs) {
    this.#moment = Math.floor(nowMs / 1000) - secondsAgo;
    const at = new Date(this.#moment * 1000).toLocaleTimeString();
    const said = devices
      .filter((device) => device.seconds.has(this.#moment))
      .map((device) => `${device.id}: ${inWords(device.seconds.get(this.#moment))}`);
    return `At ${at}: ${said.join("; ") || "no face"}`;
  }

  get looking() { return this.#moment !== null; }

  #keep(devices) {
    const wanted = devices.map((device) => device.id);
    if (wanted.join() === [...this.#rows.keys()].join()) return;
    const rows = wanted.map((id) => [id, this.#rows.get(id) ?? row(id)]);
    this.#rows = new Map(rows);
    const parts = rows.flatMap(([, { name, canvas }]) => [name, canvas]);
    this.element.replaceChildren(...parts, ...(rows.length ? [this.axis] : []));
  }

  #ribbon(canvas, device, colours, now) {
    const scale = devicePixelRatio;
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
    if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const x = (second) => Math.round(((second - now + WINDOW_S - 1) / WINDOW_S) * canvas.width);
    for (const [second, counts] of device.seconds) {
      const total = [...counts.values()].reduce((sum, n) => sum + n, 0);
      let below = 0;
      for (const expression of Object.keys(colours)) {
        const part = (counts.get(expression) ?? 0) / total;
        if (!part) continue;
        context.fillStyle = legible(colours[expression]);
        const [top, bottom] = [below, below + part].map((y) => Math.round(y * canvas.height));
        context.fillRect(x(second), top, x(second + 1) - x(second), bottom - top);
        below += part;
      }
    }
    if (this.#moment !== null) {
      context.fillStyle = getComputedStyle(canvas).color;
      context.fillRect((x(this.#moment) + x(this.#moment + 1)) / 2 - scale, 0, 2 * scale, canvas.height);
    }
    canvas.setAttribute("aria-label", `${device.id}: ${inWords(summed(device.seconds))} in two minutes`);
  }
}

function row(id) {
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = name.title = id;
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  return { name, canvas };
}

function summed(seconds) {
  const all = new Map();
  for (const counts of seconds.values())
    for (const [expression, n] of counts) all.set(expression, (all.get(expression) ?? 0) + n);
  return all;
}

function inWords(counts) {
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  return most.map(([expression, n]) => `${expression} ${n}`).join(", ") || "no face";
}

// A colour that can be seen on the page's ground: the darkest are lifted where that is dark.
export function legible(colour) {
  const parts = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  const light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  if (!dark.matches || light > 120) return colour;
  const lift = (120 - light) / (255 - light);
  return `rgb(${parts.map((part) => Math.round(part + lift * (255 - part))).join(" ")})`;
}
