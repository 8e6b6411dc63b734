// What the page knows. Everything is bounded: devices, faces of each, and seconds of the timeline.

export const WINDOW_S = 120;
export const MAX_DEVICES = 200;
const MAX_TRACKS = 64; // of one device
const IN_VIEW_MS = 5000;
const RATE_S = 10;
const LEFT_MS = 10_000; // who is told of each two seconds, and was not for so long, has left

export class State {
  devices = new Map(); // by id, the one longest silent first
  dropped = 0;

  // A chunk's faces, as the event has them; nowMs: when it came.
  add(chunk, nowMs) {
    const device = this.#device(chunk.device);
    this.dropped = Math.max(this.dropped, chunk.dropped);
    for (const face of chunk.faces) {
      const seenMs = nowMs - face.before_ms;
      device.faces += 1;
      device.seenMs = Math.max(device.seenMs, seenMs);
      if (face.before_ms === 0) device.last = face;
      count(device.seconds, Math.floor(seenMs / 1000), face.expression);
      const key = `${chunk.run}/${face.track}`;
      device.tracks.delete(key);
      device.tracks.set(key, { ...face, key, seenMs });
      if (device.tracks.size > MAX_TRACKS) device.tracks.delete(device.tracks.keys().next().value);
    }
  }

  // Who is connected to the recognizer; one that has sent no face yet is shown, where there is room.
  connected(devices, nowMs) {
    for (const { device: id, silent_s: silentS } of devices) {
      const known = this.devices.has(id);
      if (!known && this.devices.size >= MAX_DEVICES) continue;
      const device = known ? this.devices.get(id) : this.#device(id);
      device.connectedMs = nowMs;
      device.silentMs = nowMs - 1000 * silentS;
    }
  }

  // Forget what is too old to be shown.
  age(nowMs) {
    const first = Math.floor(nowMs / 1000) - WINDOW_S;
    for (const device of this.devices.values())
      if (!device.faces && nowMs - device.connectedMs > LEFT_MS) this.devices.delete(device.id);
    for (const device of this.devices.values()) {
      for (const second of device.seconds.keys()) if (second < first) device.seconds.delete(second);
      for (const [key, face] of device.tracks)
        if (nowMs - face.seenMs > IN_VIEW_MS) device.tracks.delete(key);
    }
  }

  #device(id) {
    const device = this.devices.get(id) ?? {
      id, faces: 0, seenMs: 0, connectedMs: 0, silentMs: 0, last: null, tracks: new Map(), seconds: new Map(),
    };
    this.devices.delete(id);
    this.devices.set(id, device);
    if (this.devices.size > MAX_DEVICES) this.devices.delete(this.devices.keys().next().value);
    return device;
  }

  // By name, so that rows stay where they are.
  sorted() {
    return [...this.devices.values()].sort((a, b) => a.id.localeCompare(b.id));
  }

  // Those that have sent a face since the page was opened, which is what a timeline is of.
  heard() {
    return this.sorted().filter((device) => device.faces);
  }
}

// When a device that is silent was heard of last, or came: "14:05".
export function silentSince(device) {
  return new Date(device.silentMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function count(seconds, second, expression) {
  const of = seconds.get(second) ?? new Map();
  of.set(expression, (of.get(expression) ?? 0) + 1);
  seconds.set(second, of);
}

// Faces a second over the last ten whole seconds.
export function rate(device, nowMs) {
  const now = Math.floor(nowMs / 1000);
  let faces = 0;
  for (let second = now - RATE_S; second < now; second += 1)
    for (const n of device.seconds.get(second)?.values() ?? []) faces += n;
  return faces / RATE_S;
}
