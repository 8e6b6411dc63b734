// Wires the recognizer's events to what is shown. Nothing is kept beyond this page.

import { showFigures } from "./figures.js";
import { Picture } from "./picture.js";
import { MAX_DEVICES, State } from "./state.js";
import { showDevices, showFaces, swatch } from "./tables.js";
import { MAX_ROWS, Timeline } from "./timeline.js";

const DRAW_MS = 500;
const ANNOUNCE_MS = 20_000;
const AGAIN_MS = 5000;

const at = (id) => document.getElementById(id);
const HINT = at("moment-said").value;
const state = new State();
const timeline = new Timeline(at("timeline"));
const picture = new Picture();
let colours = {};
let paused = false;

function connect() {
  const source = new EventSource("events");
  const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  source.onopen = () => connection("live", "Live");
  source.onerror = () => {
    connection("lost", "Connection lost, trying again …");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS); // it was refused
  };
  on("begin", (said) => allowPictures(said.reconstruction));
  on("faces", (chunk) => state.add(chunk, Date.now()));
  on("figures", (figures) => {
    learnColours(figures.expressions);
    if (!paused) showFigures(figures);
  });
  on("devices", (devices) => state.connected(devices, Date.now()));
  on("missed", () => warn("While the connection was lost, recognitions came that are not shown here."));
  on("end", (said) => connection("lost", `Ended: ${said.reason}. Trying again …`));
}

function connection(how, text) {
  at("connection").dataset.state = how;
  if (at("connection").textContent !== text) at("connection").textContent = text;
}

function warn(text) {
  at("dropped").hidden = false;
  if (at("dropped").textContent !== text) at("dropped").textContent = text;
}

function allowPictures(allowed) {
  picture.allow(allowed);
  for (const cell of document.querySelectorAll(".pictures")) cell.hidden = !allowed;
}

function learnColours(expressions) {
  if (JSON.stringify(expressions) === JSON.stringify(colours)) return;
  colours = expressions;
  drawLegend();
}

function drawLegend() {
  const items = Object.entries(colours).map(([name, colour]) => {
    const item = document.createElement("li");
    item.append(swatch(colour), name);
    return item;
  });
  at("legend").replaceChildren(...items);
}

function draw() {
  const nowMs = Date.now();
  state.age(nowMs);
  if (paused || document.hidden) return;
  const devices = state.sorted();
  const heard = state.heard();
  const shown = heard.slice(0, MAX_ROWS);
  timeline.draw(shown, colours, nowMs);
  at("timeline-empty").hidden = heard.length > 0;
  at("moments").hidden = heard.length === 0;
  at("timeline-more").hidden = heard.length <= MAX_ROWS;
  at("timeline-more").textContent = `The first ${MAX_ROWS} of ${heard.length} devices, by name.`;
  const onPicture = picture.allowed ? (id) => picture.make(id) : null;
  showDevices(at("devices").tBodies[0], devices, colours, nowMs, onPicture);
  at("devices-note").hidden = devices.length > 0 && devices.length < MAX_DEVICES;
  if (devices.length >= MAX_DEVICES) at("devices-note").textContent = `At most ${MAX_DEVICES} devices are shown: those heard of last.`;
  const faces = showFaces(at("in-view").tBodies[0], devices, colours, nowMs);
  at("in-view-note").hidden = faces > 0;
  if (!timeline.looking) sayMoment("", 0);
  if (state.dropped) warn(`This browser was too slow: ${state.dropped.toLocaleString()} recognitions are not shown.`);
}

// What was seen at a moment; "" for the hint that one can be looked at.
function sayMoment(text, value) {
  if (at("moment-said").value === (text || HINT)) return;
  at("moment-said").value = text || HINT;
  at("moment-said").classList.toggle("said", Boolean(text));
  at("moment").value = value;
}

// For those who cannot see the tables change: a sentence now and then, where it is another one.
function announce() {
  if (!at("announce").checked || paused || document.hidden) return;
  const devices = state.sorted().filter((device) => device.tracks.size);
  const faces = devices.reduce((sum, device) => sum + device.tracks.size, 0);
  const said = devices.slice(0, 3).map((device) => `${device.id} ${device.last?.expression ?? ""}`);
  const text = faces
    ? `${faces} ${faces === 1 ? "face" : "faces"} in view at ${devices.length} ${devices.length === 1 ? "device" : "devices"}: ${said.join(", ")}`
    : "No face in view";
  if (at("announcer").textContent !== text) at("announcer").textContent = text;
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  draw();
});
at("moment").addEventListener("input", (event) => {
  const nowMs = Date.now();
  const devices = state.heard().slice(0, MAX_ROWS);
  const secondsAgo = -Number(event.target.value);
  sayMoment(timeline.lookAt(secondsAgo, devices, nowMs), -secondsAgo);
  timeline.draw(devices, colours, nowMs);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawLegend();
  for (const cell of document.querySelectorAll("[data-said]")) delete cell.dataset.said;
  draw();
});
setInterval(draw, DRAW_MS);
setInterval(announce, ANNOUNCE_MS);
connect();
