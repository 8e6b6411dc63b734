// What the page knows. Everything is bounded: devices, faces of each, and seconds of the timeline.

export const WINDOW_S = 120;
export const MAX_DEVICES = 200;
const MAX_TRACKS = 64; // of one device
const IN_VIEW_MS = 5000;
const RATE_S = 10;

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

  // Forget what is too old to be shown.
  age(nowMs) {
    const first = Math.floor(nowMs / 1000) - WINDOW_S;
    for (const device of this.devices.values()) {
      for (const second of device.seconds.keys()) if (second < first) device.seconds.delete(second);
      for (const [key, face] of device.tracks)
        if (nowMs - face.seenMs > IN_VIEW_MS) device.tracks.delete(key);
    }
  }

  #device(id) {
    const device = this.devices.get(id) ?? {
      id, faces: 0, seenMs: 0, last: null, tracks: new Map(), seconds: new Map(),
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
