// The figures of the recognizer: faces, bytes, what JPEG would have cost, estimated accuracy.

const at = (id) => document.getElementById(id);

function bytes(n) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const unit = Math.min(n < 1 ? 0 : Math.floor(Math.log10(n) / 3), units.length - 1);
  const value = n / 1000 ** unit;
  return `${value.toLocaleString(undefined, { maximumFractionDigits: unit && value < 100 ? 1 : 0 })}\u00a0${units[unit]}`;
}

export function showFigures(figures) {
  const faces = figures.bundles.reduce((sum, bundle) => sum + bundle.faces, 0);
  const coded = figures.bundles.reduce((sum, bundle) => sum + bundle.payload_bytes, 0);
  at("faces").textContent = faces.toLocaleString();
  const streams = figures.streams;
  at("streams").textContent = `${streams} device ${streams === 1 ? "stream" : "streams"} open`;
  at("bytes").textContent = faces ? (coded / faces).toFixed(1) : "–";
  showJpeg(figures.bundles.filter((bundle) => bundle.faces), faces, coded);
  at("jpeg-source").textContent = figures.jpeg_source;
  showAccuracy(figures.accuracy, figures.accuracy_window_s);
}

// Compared where the cost as JPEG was measured for every face that was counted.
function showJpeg(bundles, faces, coded) {
  const known = faces > 0 && bundles.every((bundle) => bundle.jpeg_bytes_a_face !== null);
  at("compared").hidden = !known;
  if (!known) {
    at("jpeg").textContent = faces ? "What faces of this size cost as JPEG was not measured." : "";
    return;
  }
  const jpeg = bundles.reduce((sum, bundle) => sum + bundle.faces * bundle.jpeg_bytes_a_face, 0);
  at("ours").style.width = `${(100 * coded) / Math.max(jpeg, coded)}%`;
  at("theirs").style.width = `${(100 * jpeg) / Math.max(jpeg, coded)}%`;
  const times = (jpeg / coded).toFixed(1);
  at("jpeg").textContent =
    `${bytes(jpeg / faces)} a face as JPEG, ${times} times as many; ` +
    `all of them: ${bytes(coded)} instead of ${bytes(jpeg)}`;
}

function showAccuracy(rows, windowS) {
  const faces = rows.reduce((sum, row) => sum + row.faces, 0);
  if (!faces) {
    at("accuracy").textContent = "–";
    at("accuracy-note").textContent = "";
    return;
  }
  const estimate = rows.reduce((sum, row) => sum + row.faces * row.estimate, 0) / faces;
  at("accuracy").textContent = `${(100 * estimate).toFixed(1)}%`;
  const calibrated = rows.every((row) => row.calibrated);
  const minutes = Math.round(windowS / 60);
  at("accuracy-note").textContent =
    `of ${faces.toLocaleString()} faces in ${minutes} min, ${calibrated ? "calibrated" : "not calibrated: take it as a trend"}`;
}
