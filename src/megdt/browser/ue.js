// The page: what is asked, what this device does for it, and what it took.

import { decodeSeed, decodeText, encodePrompt, encodeSeed } from "./codecs.js";
import { Session } from "./session.js";

const $ = (id) => document.getElementById(id);
const CELL = 8; // pixels along a latent

// The models run in a worker; a call is a message with a number, and its answer has the same.
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const calls = new Map();
let numbers = 0;
worker.onmessage = ({ data: { number, result, error } }) => {
  const [resolve, reject] = calls.get(number);
  calls.delete(number);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
const run = (task, told, transfer = []) => new Promise((resolve, reject) => {
  calls.set(++numbers, [resolve, reject]);
  worker.postMessage({ number: numbers, task, told }, transfer);
});

let config, session, picture = null, busy = false;
let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem("megdt-token") ?? "";
// The token is taken out of the address, so that it is in no history and no screenshot.
if (location.hash) history.replaceState(null, "", location.pathname);
sessionStorage.setItem("megdt-token", token);

const PHASES = { connecting: "connecting ...", open: "connected", cut: "connection lost, trying again ...", closed: "closed" };

function shown(phase, error) {
  $("connection").dataset.phase = phase;
  $("connection").textContent = error ? error.message : PHASES[phase];
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

async function renew() {
  const answer = await fetch("../v1/tokens", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail ?? "the server refuses this page");
  token = told.token;
  sessionStorage.setItem("megdt-token", token);
  setTimeout(() => renew().catch(() => {}), 500 * told.expires_in_s);
}

async function begin() {
  config = await (await fetch("../v1/browser")).json();
  try {
    await renew();
  } catch (error) {
    shown("closed", error);
    say("Open this page by the address that megdt serve prints: it has a token in it.", true);
    return;
  }
  const capabilities = [...("gpu" in navigator ? ["webgpu"] : []), ...(navigator.mediaDevices ? ["camera"] : []), "int8", "fp32"];
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  session = new Session({
    url: `${scheme}://${location.host}/v1/session`, token: () => token, bundle: config.bundle, device: config.device, capabilities, onPhase: shown,
  });
  session.open();
  await run("load", { models: [config.models.decoder], precision: $("precision").value });
  document.body.dataset.ready = "yes";
}

function tables(mechanism, prompt) {
  const codec = $("codec").value;
  const channel = $("channel").value;
  const link = channel === "network" ? { channel } : { channel, snr_db: Number($("snr").value), coding: "ldpc" };
  return {
    request: { prompt: prompt || "what the camera sees", size_px: Number($("size").value), rng_seed: Math.floor(Math.random() * 2 ** 31) },
    plan: { mechanism },
    codecs: { seed: mechanism === "es_to_ue" ? codec : "int8" },
    link,
  };
}

const computation = (stage, task, seconds, flops, source) => ({
  stage, task, source, side: "UE", flops, measured_s: seconds,
  seconds: flops ? flops / config.device.flops_per_s : seconds,
  energy_j: flops ? (flops / config.device.flops_per_s) * config.device.compute_power_w : seconds * config.device.core_power_w,
});

const flopsOf = (name, cells) => config.models[name].flops_per_cell * cells + config.models[name].flops_per_item;

// es_to_ue: the prompt goes up, the server draws, the seed comes down and is decoded here.
async function fromPrompt(side, prompt, size) {
  side.send("ask", "prompt", encodePrompt(prompt));
  const grid = size / CELL;
  const delivery = await side.feature("denoise");
  const lines = [computation("ask", "run", 1e-6, 0, null), computation("embed", "encode prompt", 1e-5, 0, "ask")];
  if (delivery.outcome !== "delivered") return { lines, outcome: delivery.outcome };
  const began = performance.now();
  const { latent, noisePower } = decodeSeed(delivery, 4 * grid * grid, $("codec").value);
  lines.push(computation("decode", "decode seed", (performance.now() - began) / 1000, 0, "denoise"));
  preview(latent, grid);
  const made = await run("decode", { latent, height: grid, width: grid, noisePower, precision: $("precision").value, model: config.models.decoder });
  paint(made.rgba, size);
  lines.push(computation("decode", "run", made.seconds, flopsOf("decoder", grid * grid), null));
  return { lines, seconds: made.seconds };
}

// ue_to_es and describe: what the camera sees is encoded here, its seed goes up.
async function fromPicture(side, target, answered) {
  const { rgba, size } = picture;
  const made = await run("encode", { rgba, height: size, width: size, precision: $("precision").value, model: config.models.encoder });
  const lines = [computation("encode", "run", made.seconds, flopsOf("encoder", (size / CELL) ** 2), null)];
  const began = performance.now();
  const packet = encodeSeed(made.latent);
  lines.push(computation(target, "encode seed", (performance.now() - began) / 1000, 0, "encode"));
  side.send("encode", "seed", packet);
  if (answered) {
    const delivery = await side.feature("write");
    if (delivery.outcome === "delivered") say(decodeText(delivery));
    lines.push(computation("show", "decode text", 1e-5, 0, "write"), computation("show", "run", 1e-6, 0, null));
  }
  return { lines, seconds: made.seconds };
}

async function ask(mechanism, prompt, part) {
  if (busy || !session) return;
  setBusy(true);
  const size = Number($("size").value);
  const began = performance.now();
  let seconds = 0;
  document.body.dataset.state = "running";
  try {
    say(mechanism === "es_to_ue" ? "The server draws ..." : "This device encodes ...");
    const result = await session.ask(tables(mechanism, prompt), async (side) => {
      const done = await part(side, size);
      seconds = done.seconds ?? 0;
      return done.lines;
    }, { deadlineS: 120 });
    const wallS = (performance.now() - began) / 1000;
    costs(result, wallS, seconds);
    if (result.outcome && result.outcome !== "delivered") say(`Nothing came: the packet was ${result.outcome}. Raise the SNR, or take analog symbols.`, true);
    else if (mechanism === "es_to_ue") say(prompt);
    else if (mechanism === "ue_to_es") say("The server has the picture, as its seed.");
    document.body.dataset.state = result.outcome ?? "delivered";
  } catch (error) {
    say(error.message, true);
    document.body.dataset.state = "failed";
  } finally {
    setBusy(false);
  }
}

function setBusy(now) {
  busy = now;
  $("make").disabled = now;
  $("describe").disabled = $("send").disabled = now || picture === null;
}

function paint(rgba, size) {
  const canvas = $("picture");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(rgba, size, size), 0, 0);
  canvas.setAttribute("aria-label", $("prompt").value);
}

// A rough picture at once: each latent is a colour, by a linear map that the bundle came with.
function preview(latent, grid) {
  const area = grid * grid;
  const rgba = new Uint8ClampedArray(4 * area);
  const { matrix, offset } = config.preview;
  for (let cell = 0; cell < area; cell++) {
    for (let channel = 0; channel < 3; channel++) {
      let value = offset[channel];
      for (let part = 0; part < 4; part++) value += matrix[channel][part] * latent[part * area + cell];
      rgba[4 * cell + channel] = value;
    }
    rgba[4 * cell + 3] = 255;
  }
  paint(rgba, grid);
  $("picture").dataset.preview = "shown";
}

const si = (value, unit) => {
  if (value === 0) return `0 ${unit}`;
  const steps = [[1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];
  const [factor, prefix] = steps.find(([size]) => Math.abs(value) >= size) ?? steps.at(-1);
  return `${(value / factor).toPrecision(3)} ${prefix}${unit}`;
};

const PARTS = ["Server", "This device", "Air", "The rest"];

function costs({ ledger }, wallS, deviceS) {
  const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
  const crossings = ledger.crossings ?? [];
  const computations = ledger.computations ?? [];
  const airS = sum(crossings, "latency_s");
  const serverS = sum(computations.filter((row) => row.side === "ES"), "measured_s");
  const here = computations.filter((row) => row.side === "UE");
  const uses = crossings.reduce((total, { uses: u }) => total + u.data + u.retransmissions + u.pilots + u.control + u.feedback, 0);
  const ueJ = sum(here, "energy_j") + crossings.reduce((total, row) => total + (row.from_side === "UE" ? row.sender_j : row.receiver_j), 0);
  const network = $("channel").value === "network";
  const restS = Math.max(wallS - serverS - deviceS, 0);
  const parts = [["server", serverS], ["this device", deviceS], ["air", airS], ["the rest", restS]];
  const rows = [
    ["Payload", si(sum(crossings, "bits"), "bit")],
    ["Channel uses", network ? "none, the network is the link" : uses.toLocaleString("en")],
    ["SNR", network ? "not simulated" : `${$("snr").value} dB`],
    ["Server", si(serverS, "s")],
    ["This device", si(deviceS, "s")],
    ["Air", `${si(airS, "s")}${network ? "" : ", simulated"}`],
    ["The rest", si(restS, "s")],
    ["All of it, here", si(wallS, "s")],
    ["Energy of a phone", `${si(ueJ, "J")}, estimated`],
  ];
  $("costs").replaceChildren(...rows.flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [name, value];
    const part = PARTS.indexOf(name);
    if (part >= 0) dt.dataset.part = part + 1;
    return [dt, dd];
  }));
  const all = parts.reduce((total, [, value]) => total + value, 0) || 1;
  $("bars").replaceChildren(...parts.map(([name, value]) => {
    const bar = document.createElement("i");
    bar.style.width = `${(100 * value) / all}%`;
    bar.title = `${name}: ${si(value, "s")}`;
    return bar;
  }));
  $("bars").setAttribute("aria-label", parts.map(([name, value]) => `${name} ${si(value, "s")}`).join(", "));
}

// What the camera or a file shows, as the middle square.
function take(source, width, height) {
  const size = Number($("size").value);
  const side = Math.min(width, height);
  const canvas = $("picture");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
  picture = { rgba: context.getImageData(0, 0, size, size).data, size };
  setBusy(busy);
}

async function toggleCamera() {
  const video = $("camera");
  if (video.srcObject) {
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  } else {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await video.play();
      say("The camera looks. Describe, or send what it sees as a seed.");
    } catch (error) {
      say(navigator.mediaDevices ? `No camera: ${error.message}` : "Browsers give the camera to secure pages alone: start the server with --dev-cert.", true);
      return;
    }
  }
  const on = Boolean(video.srcObject);
  video.hidden = !on;
  $("picture").hidden = on;
  $("start-camera").setAttribute("aria-pressed", String(on));
  $("describe").disabled = $("send").disabled = !(on || picture);
}

function look() {
  const video = $("camera");
  if (!video.srcObject) return;
  take(video, video.videoWidth, video.videoHeight);
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("camera").srcObject) toggleCamera();
  const prompt = $("prompt").value.trim();
  if (prompt) ask("es_to_ue", prompt, (side, size) => fromPrompt(side, prompt, size));
});
$("start-camera").addEventListener("click", toggleCamera);
$("upload").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  try {
    const bitmap = await createImageBitmap(target.files[0]);
    if ($("camera").srcObject) await toggleCamera();
    take(bitmap, bitmap.width, bitmap.height);
    say("Describe it, or send it as a seed.");
  } catch {
    say("That file is no picture that this browser reads; take a JPEG, PNG or WebP.", true);
  }
  target.value = "";
});
$("describe").addEventListener("click", () => { look(); ask("describe", "", (side) => fromPicture(side, "decode", true)); });
$("send").addEventListener("click", () => { look(); ask("ue_to_es", "", (side) => fromPicture(side, "decode", false)); });
$("snr").addEventListener("input", () => { $("snr-shown").textContent = `${$("snr").value} dB`; });
$("channel").addEventListener("change", () => { $("snr").disabled = $("channel").value === "network"; });

// For tests and those who look: what the models give, without a server.
window.megdt = { run, get session() { return session; }, get config() { return config; } };

begin().catch((error) => say(error.message, true));
