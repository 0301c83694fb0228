"use strict";
// A picture goes to /predict, and what comes back is drawn on it. One at a time, so that nothing piles up.
const $ = (id) => document.getElementById(id);
const view = $("view").getContext("2d");
const video = document.createElement("video");
video.muted = true;
video.playsInline = true;
let token = "";
let running = 0; // the number of the source that is followed; 0: none
let sources = 0;
let frames = 0;
let times = [];

const say = (text) => { $("message").textContent = text; };
const hue = (label) => Math.round((7 + label * 222.5) % 360);
const color = (label) => `hsl(${hue(label)} 85% 50%)`;
const ink = (label) => (hue(label) > 35 && hue(label) < 200 ? "#000" : "#fff"); // yellow to cyan is bright
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(picture) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`predict?conf=${$("conf").value}`, { method: "POST", body: picture, headers });
  const told = await answer.json();
  if (answer.ok) return told;
  if (answer.status === 503) return { wait: Number(answer.headers.get("Retry-After")) || 1 };
  if (answer.status === 401) $("login").hidden = false;
  if (answer.status === 400 && /conf: for detectors only/.test(told.error)) return askPlainly(picture, headers);
  throw new Error(told.error);
}

async function askPlainly(picture, headers) { // anomaly networks take no score threshold
  $("conf").disabled = true;
  const answer = await fetch("predict", { method: "POST", body: picture, headers });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function corners(box, layout) {
  if (layout !== "xywhr") return [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]];
  const [x, y, w, h, r] = box;
  const [c, s] = [Math.cos(r) / 2, Math.sin(r) / 2];
  return [[-w, -h], [w, -h], [w, h], [-w, h]].map(([a, b]) => [x + a * c - b * s, y + a * s + b * c]);
}

function draw(picture, width, height, found) {
  const canvas = view.canvas;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  view.drawImage(picture, 0, 0, width, height);
  view.lineWidth = Math.max(2, Math.min(width, height) / 250);
  view.font = `${Math.max(12, Math.min(width, height) / 36)}px system-ui, sans-serif`;
  view.textBaseline = "bottom";
  for (let i = found.boxes.length - 1; i >= 0; i--) { // the best score is drawn last, on top
    const points = corners(found.boxes[i], found.layout);
    view.strokeStyle = view.fillStyle = color(found.labels[i]);
    view.beginPath();
    points.forEach(([x, y], n) => (n ? view.lineTo(x, y) : view.moveTo(x, y)));
    view.closePath();
    view.stroke();
    const [x, y] = points.reduce((a, b) => (b[1] < a[1] ? b : a));
    const text = `${found.names[i]} ${found.scores[i].toFixed(2)}`;
    const size = parseFloat(view.font) * 1.25;
    const wide = view.measureText(text).width + 8;
    const left = Math.max(Math.min(x, width - wide), 0);
    const top = Math.max(y - size, 0);
    view.fillRect(left, top, wide, size);
    view.fillStyle = ink(found.labels[i]);
    view.fillText(text, left + 4, top + size * 0.95);
  }
}

function tell(found, milliseconds) {
  frames += 1;
  times = [...times.slice(-29), performance.now()];
  const rate = times.length > 1 ? (1000 * (times.length - 1)) / (times[times.length - 1] - times[0]) : 0;
  const verdict = found.is_anomalous === undefined ? "" : found.is_anomalous ? " · anomalous" : " · normal";
  $("count").textContent = `${found.boxes.length}${verdict}`;
  $("frames").textContent = frames;
  $("fps").textContent = rate ? rate.toFixed(1) : "–";
  $("predict").textContent = `${found.timings_ms.total.toFixed(1)} ms`;
  $("whole").textContent = `${milliseconds.toFixed(1)} ms`;
  $("list").replaceChildren(...found.names.slice(0, 20).map((name, i) => {
    const row = document.createElement("li");
    row.textContent = `${name} ${found.scores[i].toFixed(2)}`;
    return row;
  }));
}

async function show(picture, blob, width, height) {
  const start = performance.now();
  const found = await ask(blob);
  if (found.wait) {
    say(`the service is busy; asking again in ${found.wait} s`);
    await pause(found.wait);
    return;
  }
  say("");
  draw(picture, width, height, found);
  tell(found, performance.now() - start);
}

async function follow() {
  const mine = running = ++sources;
  $("stop").disabled = false;
  times = [];
  const still = document.createElement("canvas"); // the frame that was asked for, while the video goes on
  try {
    await video.play();
    while (mine === running && !video.ended) {
      [still.width, still.height] = [video.videoWidth, video.videoHeight];
      still.getContext("2d").drawImage(video, 0, 0);
      const blob = await new Promise((done) => still.toBlob(done, "image/jpeg", 0.9));
      await show(still, blob, still.width, still.height);
    }
  } catch (error) {
    if (mine === running) say(error.message);
  }
  if (mine === running) stop();
}

function stop() {
  running = 0;
  $("stop").disabled = true;
  video.pause();
  if (video.srcObject) video.srcObject.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
}

$("camera").onclick = async () => {
  stop();
  if (!navigator.mediaDevices) {
    say("browsers show cameras to pages of localhost or https only; through ssh: ssh -L 8000:localhost:8000 board");
    return;
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    await follow();
  } catch (error) {
    say(error.message);
  }
};

$("file").onchange = async () => {
  const [file] = $("file").files;
  if (!file) return;
  stop();
  try {
    if (file.type.startsWith("video/")) {
      video.src = URL.createObjectURL(file);
      await follow();
    } else {
      const picture = await createImageBitmap(file);
      await show(picture, file, picture.width, picture.height);
    }
  } catch (error) {
    say(error.message);
  }
  $("file").value = "";
};

$("stop").onclick = stop;
$("conf").oninput = () => { $("conf-value").textContent = Number($("conf").value).toFixed(2); };
$("login").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("login").hidden = true;
  say("");
};
fetch("healthz").then((answer) => answer.json()).then((told) => {
  $("model").textContent = document.title = told.model;
});
