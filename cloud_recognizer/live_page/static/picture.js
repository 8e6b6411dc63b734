// A synthetic picture of a device's next face, where the recognizer's policy allows one: asked for by
// hand, marked as what it is, one at a time, and gone after a minute.

const SHOWN_MS = 60_000;
const at = (id) => document.getElementById(id);

export class Picture {
  allowed = false;
  #timer = 0;
  #waiting = false;

  constructor() {
    at("picture-close").addEventListener("click", () => {
      this.#remove("The picture was removed.");
      at("devices").focus();
    });
  }

  allow(allowed) {
    this.allowed = allowed;
    at("picture-policy").textContent = allowed
      ? "This recognizer's operator allows viewable faces. Such a picture is computed from the bytes that " +
        "were sent, not what the camera saw, and each one is written to the audit log where there is one."
      : "Off. This recognizer makes no viewable faces: its operator has not set allow_reconstruction, or " +
        "its policy forbids it.";
    if (!allowed) this.#remove("");
  }

  async make(device) {
    if (this.#waiting) return;
    this.#waiting = true;
    at("picture-said").textContent = `Waiting for the next face of ${device} …`;
    try {
      const answer = await fetch(`picture?device=${encodeURIComponent(device)}`, { method: "POST" });
      const said = await answer.json();
      if (answer.ok) this.#show(device, said);
      else this.#remove(`No picture: ${said.message}`);
    } catch {
      this.#remove("No picture: the recognizer cannot be reached.");
    } finally {
      this.#waiting = false;
    }
  }

  #show(device, { track, png }) {
    const when = new Date().toLocaleTimeString();
    at("picture-image").src = `data:image/png;base64,${png}`;
    at("picture-image").alt = `Synthetic reconstruction of a face at ${device}; not what the camera saw`;
    at("picture-caption").textContent =
      `Synthetic: made from a latent of ${device}, track ${track}, at ${when}. Not what the camera saw.`;
    at("picture").hidden = false;
    at("picture").scrollIntoView({ block: "nearest" });
    at("picture-said").textContent = `A synthetic picture of a face at ${device} is shown, for a minute.`;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#remove("The picture was removed after a minute."), SHOWN_MS);
  }

  #remove(text) {
    clearTimeout(this.#timer);
    at("picture").hidden = true;
    at("picture-image").removeAttribute("src");
    at("picture-image").alt = "";
    at("picture-said").textContent = text;
  }
}
