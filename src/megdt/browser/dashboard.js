// The dashboard: what the twin knows beside what is, round after round, and the nodes that are connected.

import uPlot from "./vendor/uPlot.esm.js";

const $ = (id) => document.getElementById(id);
const WORLD = ["extra_loss_db", "speed_m_s", "sky", "weather"];
const UNITS = { extra_loss_db: "dB", speed_m_s: "m/s" };
const KEPT = 120;

let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem("megdt-token") ?? "";
if (location.hash) history.replaceState(null, "", location.pathname);
sessionStorage.setItem("megdt-token", token);

const rounds = [];
const requests = new Map();
let shownRound = null; // null: the newest
let plots = [];
const pictures = new Map();

const call = (path, options = {}) => fetch(`../v1/${path}`, { ...options, headers: { Authorization: `Bearer ${token}`, ...options.headers } });

function phase(name, text) {
  $("connection").dataset.phase = name;
  $("connection").textContent = text;
}

async function renew() {
  const answer = await call("tokens", { method: "POST" });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail);
  token = told.token;
  sessionStorage.setItem("megdt-token", token);
  setTimeout(() => renew().catch(() => {}), 500 * told.expires_in_s);
}

// Server-sent events by fetch, as EventSource shows no token.
async function listen() {
  const answer = await call("events");
  if (!answer.ok) throw new Error((await answer.json()).detail);
  phase("open", "live");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const lines = text.slice(0, end).split("\n");
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data")) take(field("event"), JSON.parse(field("data")));
    }
  }
}

function take(event, data) {
  if (event === "snapshot") {
    rounds.length = 0;
    requests.clear();
    data.requests.forEach((row) => requests.set(row.number, row));
    data.twin.forEach((row) => rounds.push(row));
    nodes(data.ues);
    world(data.world);
    draw();
  } else if (event === "twin") {
    rounds.push(data);
    if (rounds.length > KEPT) rounds.shift();
    draw();
  } else if (event === "request") requests.set(data.number, data);
  else if (event === "ues") nodes(data);
  table();
}

function world(values) {
  if (!values) return;
  for (const name of WORLD) {
    if (document.activeElement !== $(name)) $(name).value = values[name];
    if (UNITS[name]) $(`${name}-shown`).textContent = `${$(name).value} ${UNITS[name]}`;
  }
}

async function change(values) {
  const answer = await call("twin/world", { method: "POST", body: JSON.stringify(values), headers: { "Content-Type": "application/json" } });
  if (!answer.ok) $("twin-says").textContent = (await answer.json()).detail;
  else {
    world(await answer.json());
    $("twin-says").textContent = "From the next round on the world is so; the twin has to find it out.";
  }
}

async function picture(id, round, what) {
  const key = `${round}/${what}`;
  if (!pictures.has(key)) {
    const answer = await call(`twin/${round}/${what}`);
    if (!answer.ok) return;
    pictures.set(key, URL.createObjectURL(await answer.blob()));
    if (pictures.size > 2 * KEPT) {
      const [oldest, url] = pictures.entries().next().value;
      URL.revokeObjectURL(url);
      pictures.delete(oldest);
    }
  }
  $(id).src = pictures.get(key);
}

const bySnr = (snr) => `hsl(${Math.max(0, Math.min(1, (snr + 10) / 40)) * 130} 65% 45%)`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw() {
  if (!rounds.length) return;
  $("round").max = rounds.length - 1;
  $("round").disabled = rounds.length < 2;
  if (shownRound === null) $("round").value = rounds.length - 1;
  const now = shownRound === null ? rounds.at(-1) : rounds[Math.min(shownRound, rounds.length - 1)];
  $("round-shown").textContent = shownRound === null ? `${now.round}, live` : now.round;
  $("live").setAttribute("aria-pressed", String(shownRound === null));
  $("when").textContent = `${(now.time_s / 60).toFixed(0)} min, ${now.world.sky}, ${now.world.weather}; the twin is ${now.verdict}${now.reasons.length ? `: ${now.reasons[0]}` : ""}`;
  picture("world", now.round, "world");
  picture("replica", now.round, "replica");
  map(now);
  tiles(now);
  plans(now);
  alarms();
  chart();
  document.body.dataset.round = now.round;
}

function map({ ues, origin_m: origin, width_m: width, views }) {
  const canvas = $("map");
  const ratio = devicePixelRatio || 1;
  const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = wide * ratio;
  canvas.height = high * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  const at = (x) => ((x - origin) / width) * wide;
  ues.forEach((ue, index) => {
    const x = at(ue.x_m);
    const y = 14 + 22 * (index % 3);
    context.strokeStyle = bySnr(ue.snr_db ?? -10);
    context.fillStyle = context.strokeStyle;
    context.lineWidth = views.includes(ue.name) ? 5 : 2;
    context.beginPath();
    context.moveTo(at(ue.x_m - 2), y);
    context.lineTo(at(ue.x_m + 2), y);
    context.stroke();
    context.beginPath();
    context.arc(x, y, 5, 0, 7);
    context.fill();
    context.fillStyle = ue.monitor === "trusted" ? colour("--ink") : colour("--bad");
    const edge = Math.max(60, Math.min(wide - 60, x));
    context.fillText(`${ue.name} ${ue.snr_db === null ? "hears nothing" : `${ue.snr_db.toFixed(0)} dB`}${ue.monitor === "trusted" ? "" : ` ${ue.monitor}`}`, edge, y + 16);
  });
}

function tiles({ tile_ages_s: ages }) {
  $("tiles").replaceChildren(...ages.map((age) => {
    const tile = document.createElement("i");
    if (age !== null) tile.style.background = `hsl(205 60% ${Math.min(85, 35 + 12 * Math.log10(1 + age / 600))}%)`;
    tile.title = age === null ? "never seen" : `seen ${(age / 60).toFixed(0)} min ago`;
    return tile;
  }));
}

function row(cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const held = document.createElement("td");
    [held.textContent, held.className] = Array.isArray(cell) ? cell : [cell, ""];
    line.append(held);
  }
  return line;
}

const ms = (seconds) => (seconds === null ? "" : `${(1000 * seconds).toFixed(0)} ms`);
const joule = (value) => (value === null ? "" : `${value.toPrecision(2)} J`);

function plans({ answers }) {
  $("plans").tBodies[0].replaceChildren(...answers.map((a) => row([
    a.ue, a.prompt, `${a.expected_snr_db.toFixed(1)} ± ${a.snr_sd_db.toFixed(1)} dB, station ${a.station}`, a.plan,
    a.fallback || (a.broken.length ? `the safest: no plan keeps ${a.broken.join(", ")}` : "cheapest that keeps its promises"),
    [a.outcome, a.outcome], ms(a.latency_s), joule(a.energy_j),
  ])));
}

function alarms() {
  const found = rounds.flatMap((r) => Object.entries(r.evidence).map(([ue, told]) => `round ${r.round}, ${ue}: ${told[0]}`));
  const said = found.slice(-12).reverse();
  $("alarms").replaceChildren(...(said.length ? said : ["none"]).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    item.className = said.length ? "hot" : "dim";
    return item;
  }));
}

function table() {
  const rows = [...requests.values()].sort((a, b) => b.number - a.number).slice(0, 12);
  $("requests").tBodies[0].replaceChildren(...rows.map((r) => row([
    r.number, r.owner, r.mechanism, r.prompt, [r.outcome, ["delivered", "running"].includes(r.outcome) ? r.outcome : "failed"],
    r.seconds === null ? "" : `${r.seconds.toFixed(2)} s`, r.bits === null ? "" : r.bits.toLocaleString("en"), joule(r.energy_j),
  ])));
}

function nodes(ues) {
  const open = ues.filter((ue) => ue.phase === "open");
  const rate = (ue) => (ue.rate_bytes_s ? `, ${(ue.rate_bytes_s / 1e6).toFixed(1)} MB/s` : "");
  $("nodes").textContent = open.length ? `${open.length} connected: ${open.map((ue) => `${ue.owner} (${ue.device}${rate(ue)})`).join(", ")}` : "No UE is connected.";
}

function chart() {
  const mean = (values) => (values.length ? values.reduce((a, b) => a + b) / values.length : null);
  const x = rounds.map((r) => r.round);
  const latency = rounds.map((r) => mean(r.answers.filter((a) => a.outcome === "delivered").map((a) => 1000 * a.latency_s)));
  const error = rounds.map((r) => r.replica_error);
  const series = [["plot-latency", latency, "ms", "--part-1"], ["plot-error", error, "grey levels", "--part-2"]];
  if (!plots.length) {
    plots = series.map(([id, values, label, name]) => new uPlot({
      width: $(id).clientWidth, height: 200, cursor: { show: false }, legend: { show: false },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(1, 1.1 * (high ?? 1))] } },
      axes: [{ incrs: [1, 2, 5, 10, 20, 50], stroke: colour("--dim"), grid: { stroke: colour("--line") } }, { stroke: colour("--dim"), grid: { stroke: colour("--line") } }],
      series: [{ label: "round" }, { label, stroke: colour(name), width: 2, points: { show: true } }],
    }, [x, values], $(id)));
  } else plots.forEach((plot, index) => plot.setData([x, series[index][1]]));
}

$("round").addEventListener("input", () => { shownRound = Number($("round").value); draw(); });
$("live").addEventListener("click", () => { shownRound = null; draw(); });
for (const name of WORLD) $(name).addEventListener("change", () => change({ [name]: UNITS[name] ? Number($(name).value) : $(name).value }));
for (const name of Object.keys(UNITS)) $(name).addEventListener("input", () => { $(`${name}-shown`).textContent = `${$(name).value} ${UNITS[name]}`; });
$("storm").addEventListener("click", () => change({ extra_loss_db: 15, sky: "cloudy", weather: "rainy" }));
addEventListener("resize", () => { plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: 200 })); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  plots.forEach((plot) => plot.destroy());
  plots = [];
  draw();
});

for (let failures = 0; ; failures++) {
  try {
    if (failures === 0) await renew();
    await listen();
  } catch (error) {
    phase("closed", error.message);
    if (failures === 0) break;
  }
  phase("cut", "connection lost, trying again ...");
  await new Promise((resolve) => setTimeout(resolve, 1000));
}
