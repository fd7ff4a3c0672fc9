// Takes clicks on the frames of a study. Coordinates are pixels of the frame, pixel centres at whole numbers.
"use strict";

const CLOSE = 5; // CSS pixels that a pointer may move between press and release of a click
const REMEMBERED = 30; // pages whose time tells how long the rest will take
const $ = (id) => document.getElementById(id);
const canvas = $("frame");
const pen = canvas.getContext("2d");

let study; // what the server said at the start
let place = -1; // index of the shown page; as many as there are pages: the end
let clicks = new Map(); // "structure\tslice" -> [x, y]
let known = new Map(); // those that the table held when the page was shown, or last saved
let history = []; // earlier states of `clicks`, for undo
let chosen = 0; // index of the chosen structure
let shown = 0; // shown slice
let crosshair = null; // [x, y], moved by keys
let view = { scale: 1, x: 0, y: 0, whole: true }; // CSS pixels per pixel edge of 1, and where the frame's corner lies
let confirming = false; // whether Enter was refused once
let asked = null; // a point that waits for an answer: move, or add
const passed = new Set(); // pages left in this session without all of their points
const durations = [];
let since = performance.now();
let turning = 0; // counts turns of the page: answers to an earlier turn come too late
let saving = Promise.resolve();
const frames = new Map(); // "page/slice" -> promise of an ImageBitmap

// ---- the server

async function ask(path, body) {
  const sent = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, sent);
  if (!response.ok) throw new Error(await response.text());
  if (response.headers.get("Content-Type") === "image/png") return createImageBitmap(await response.blob());
  const answer = await response.json();
  if (answer.error) throw new Error(answer.error);
  return answer;
}

function frame(page, slice) {
  const key = `${page}/${slice}`;
  if (!frames.has(key)) {
    const asked = ask(`page/${key}`);
    asked.catch(() => frames.delete(key)); // the next try asks again
    frames.set(key, asked);
    if (frames.size > 60) frames.delete(frames.keys().next().value);
  }
  return frames.get(key);
}

// ---- geometry

const page = () => study.pages[place];
const depth = () => page().shape[0];
function edges() { // width and height of a pixel; the smaller one is 1
  const [y, x] = page().pixel;
  const small = Math.min(x, y);
  return [x / small, y / small];
}
function toScreen([x, y]) {
  const [width, height] = edges();
  return [view.x + (x + 0.5) * width * view.scale, view.y + (y + 0.5) * height * view.scale];
}
function toFrame([left, top]) {
  const [width, height] = edges();
  return [(left - view.x) / (width * view.scale) - 0.5, (top - view.y) / (height * view.scale) - 0.5];
}
const inside = ([x, y]) => x >= -0.5 && y >= -0.5 && x <= page().shape[2] - 0.5 && y <= page().shape[1] - 0.5;
function fit() { // the whole frame, in the middle
  const [width, height] = edges();
  const [wide, high] = [page().shape[2] * width, page().shape[1] * height];
  const scale = Math.min(canvas.clientWidth / wide, canvas.clientHeight / high);
  view = { scale, x: (canvas.clientWidth - wide * scale) / 2, y: (canvas.clientHeight - high * scale) / 2, whole: true };
}
function zoom(factor, [left, top] = [canvas.clientWidth / 2, canvas.clientHeight / 2]) {
  const before = view.scale;
  const scale = Math.min(Math.max(before * factor, 0.05), 200);
  view = { scale, x: left - ((left - view.x) * scale) / before, y: top - ((top - view.y) * scale) / before, whole: false };
  draw();
}

// ---- drawing

let drawing = 0;
async function draw() {
  if (!study || place < 0 || place >= study.pages.length) return;
  const [turn, slice, now] = [turning, shown, ++drawing];
  let image = null;
  try {
    image = await frame(place, slice);
  } catch (error) {
    if (turn === turning && slice === shown) say(error.message);
  }
  if (turn !== turning || slice !== shown || now !== drawing) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (view.whole) fit();
  const [width, height] = edges();
  if (image) {
    pen.imageSmoothingEnabled = view.scale < 8; // near enough, single pixels are to be seen
    pen.filter = `brightness(${$("brightness").value}) contrast(${$("contrast").value})`;
    pen.drawImage(image, view.x, view.y, image.width * width * view.scale, image.height * height * view.scale);
    pen.filter = "none";
  }
  for (const [key, point] of clicks) {
    const [name, at] = parted(key);
    mark(toScreen(point), study.colours[name], String(page().structures.indexOf(name) + 1), at === shown);
  }
  if (crosshair) cross(toScreen(crosshair));
  directions();
  canvas.dataset.slice = `${place}/${slice}`;
}
function mark([x, y], colour, text, here) { // a ring with strokes around the point, which itself stays visible
  pen.save();
  pen.globalAlpha = here ? 1 : 0.35;
  for (const [style, width] of [["#000", 4], [colour, 2]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.beginPath();
    pen.arc(x, y, 9, 0, 2 * Math.PI);
    for (const [a, b] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(x + 3 * a, y + 3 * b);
      pen.lineTo(x + 9 * a, y + 9 * b);
    }
    pen.stroke();
  }
  pen.font = "600 13px system-ui, sans-serif";
  pen.lineWidth = 3;
  pen.strokeStyle = "#000";
  pen.strokeText(text, x + 12, y - 8);
  pen.fillStyle = colour;
  pen.fillText(text, x + 12, y - 8);
  pen.restore();
}
const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", S: "I", I: "S" };
function directions() { // letters at the edges of the picture
  const [down, right] = page().axes;
  const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  pen.save();
  pen.font = "600 14px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 3;
  pen.strokeStyle = "#000";
  pen.fillStyle = study.letters;
  for (const [text, x, y] of [[OPPOSITE[down], wide / 2, 14], [down, wide / 2, high - 14], [OPPOSITE[right], 14, high / 2], [right, wide - 14, high / 2]]) {
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  }
  pen.restore();
  canvas.dataset.directions = OPPOSITE[down] + down + OPPOSITE[right] + right;
}
function cross([x, y]) {
  pen.save();
  for (const [style, width] of [["#000", 3], ["#fff", 1]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.beginPath();
    for (const [a, b] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(x + 4 * a, y + 4 * b);
      pen.lineTo(x + 22 * a, y + 22 * b);
    }
    pen.stroke();
  }
  pen.restore();
}

// ---- what is said beside the frame

function say(text) { $("message").textContent = text; }

function spoken(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds / 10) * 10)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
function showProgress() {
  const done = study.pages.filter((one) => one.done).length;
  const open = study.pages.filter((one, at) => !one.done && !passed.has(at)).length;
  const sorted = [...durations].sort((a, b) => a - b);
  const left = sorted.length && open ? `, about ${spoken(sorted[sorted.length >> 1] * open)} left` : "";
  const count = [...passed].filter((at) => !study.pages[at].done).length;
  const skipped = count ? `, ${count} skipped` : "";
  $("progress").textContent = `${done} of ${study.pages.length}${skipped}${left}`;
  $("bar").max = study.pages.length || 1;
  $("bar").value = done;
  study.pages.forEach((one, at) => {
    const button = $("pages").children[at]?.firstElementChild;
    if (!button) return;
    if (at === place) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    button.lastElementChild.textContent = one.done ? "done" : passed.has(at) ? "skipped" : "";
  });
}
function showState() {
  page().structures.forEach((name, at) => {
    const button = $("structures").children[at];
    button.setAttribute("aria-pressed", String(at === chosen));
    const own = [...clicks].filter(([key]) => parted(key)[0] === name);
    const here = clicks.get(key(name, shown));
    const others = own.map(([k]) => parted(k)[1]).filter((slice) => slice !== shown);
    const also = others.length ? `; also slice ${others.join(", ")}` : "";
    const said = here ? `${here[0].toFixed(1)}, ${here[1].toFixed(1)}${also}` : own.length ? `slice ${own.map(([k]) => parted(k)[1]).join(", ")}` : "\u2013";
    button.querySelector("small").textContent = said;
  });
  const home = page().slice;
  $("slice").textContent = shown === home ? `slice ${shown} (0 to ${depth() - 1})` : `slice ${shown}; back to ${home}`;
  document.querySelector("[data-do=before]").disabled = shown === 0;
  document.querySelector("[data-do=after]").disabled = shown === depth() - 1;
  showProgress();
}
function showPages() {
  $("pages").replaceChildren(...study.pages.map((one, at) => {
    const [line, button, name, state] = ["li", "button", "span", "small"].map((tag) => document.createElement(tag));
    button.type = "button";
    name.textContent = study.pages.filter((other) => other.volume === one.volume).length > 1 ? `${one.volume}, slice ${one.slice}` : one.volume;
    button.append(name, state);
    button.addEventListener("click", () => turn(at));
    line.append(button);
    return line;
  }));
}
function showStructures() {
  $("structures").replaceChildren(...page().structures.map((name, at) => {
    const button = document.createElement("button");
    const [number, label, where] = ["kbd", "span", "small"].map((tag) => document.createElement(tag));
    number.textContent = String(at + 1);
    label.textContent = name;
    button.type = "button";
    button.style.setProperty("--own", study.colours[name]);
    button.append(number, label, where);
    button.addEventListener("click", () => choose(at));
    return button;
  }));
}

// ---- clicks

const key = (name, slice) => `${name}\t${slice}`;
const parted = (key) => [key.split("\t")[0], Number(key.split("\t")[1])];
function withdraw() { // the question, unanswered
  asked = null;
  $("question").hidden = true;
}
function change(edit) {
  history.push(new Map(clicks));
  edit();
  confirming = false;
  withdraw();
  say("");
  showState();
  draw();
}
function choose(at) {
  if (at < 0 || at >= page().structures.length) return;
  if (asked) answer("leave");
  chosen = at;
  showState();
}
function put(point) {
  if (asked) answer("leave");
  if (!inside(point)) return say("Outside the frame.");
  if (!page().free && shown !== page().slice) {
    return say(`Only slice ${page().slice} is prompted: Home goes back to it.`);
  }
  const name = page().structures[chosen];
  const others = [...clicks.keys()].filter((one) => parted(one)[0] === name && parted(one)[1] !== shown);
  if (others.length && !clicks.has(key(name, shown))) {
    asked = { point, name, others };
    say(`${name} has a point on slice ${others.map((one) => parted(one)[1]).join(", ")}. Move it here, or add one?`);
    $("question").hidden = false;
    return;
  }
  set(name, point);
}
function answer(said) { // to the question where a second point of a structure belongs
  if (!asked) return;
  const { point, name, others } = asked;
  withdraw();
  say("");
  if (said === "leave") return;
  set(name, point, said === "move" ? others : []);
}
function set(name, point, gone = []) {
  change(() => {
    for (const one of gone) clicks.delete(one);
    clicks.set(key(name, shown), point.map((value) => Math.round(value * 1000) / 1000));
    const next = page().structures.findIndex((name) => !clicks.has(key(name, shown)));
    if (next >= 0) chosen = next;
  });
}
function undo() {
  if (asked) return answer("leave");
  if (!history.length) return turn(place - 1);
  clicks = history.pop();
  const next = page().structures.findIndex((name) => !clicks.has(key(name, shown)));
  if (next >= 0) chosen = next;
  confirming = false;
  say("");
  showState();
  draw();
}
function remove() {
  const gone = key(page().structures[chosen], shown);
  if (clicks.has(gone)) change(() => clicks.delete(gone));
}
function go(slice) {
  if (slice < 0 || slice >= depth()) return;
  if (asked) answer("leave");
  shown = slice;
  showState();
  draw();
  for (const near of [slice - 1, slice + 1]) if (near >= 0 && near < depth()) frame(place, near).catch(() => {});
}

// What keeps the page from being done, in words, or nothing.
function missing() {
  const slices = page().free ? [...new Set([...clicks.keys()].map((key) => parted(key)[1]))] : [page().slice];
  const lacking = slices.map((slice) => page().structures.filter((name) => !clicks.has(key(name, slice))));
  if (!lacking.length) return `Without a click: ${page().structures.join(", ")}`;
  if (lacking.some((names) => !names.length)) return "";
  const least = lacking.reduce((a, b) => (b.length < a.length ? b : a));
  return `Without a click${page().free && slices.length > 1 ? " on one slice" : ""}: ${least.join(", ")}`;
}
const listed = (map) => [...map].map(([key, [x, y]]) => ({ structure: parted(key)[0], slice: parted(key)[1], x, y }));
const mapped = (list) => new Map(list.map((one) => [key(one.structure, one.slice), [one.x, one.y]]));
const same = (one, other) => String(one) === String(other);
function save(at, map, before) { // one after another, in the order of the pages
  const body = { clicks: listed(map), known: listed(before) };
  saving = saving.catch(() => {}).then(() => ask(`page/${at}/clicks`, body));
  return saving;
}
// Takes over what somebody else wrote into the table meanwhile, where this page has changed nothing itself.
function takeOver(held) {
  const others = new Map([...clicks, ...held]);
  for (const key of new Set([...others.keys(), ...known.keys()])) {
    if (!same(clicks.get(key), known.get(key))) continue;
    if (held.has(key)) clicks.set(key, held.get(key));
    else clicks.delete(key);
  }
  known = held;
}
function contested(conflicts) { // in words
  return conflicts.map((one) => {
    const there = known.get(key(one.structure, one.slice));
    return `${one.structure} on slice ${one.slice} ${there ? `is at ${there[0].toFixed(1)}, ${there[1].toFixed(1)}` : "is gone"}`;
  }).join("; ");
}

// ---- pages

async function next() {
  if (place >= study.pages.length || pending()) return;
  const lacking = missing();
  if (lacking && !confirming) {
    confirming = true;
    return say(`${lacking}. Enter once more leaves the page as it is.`);
  }
  if (await keep()) advance();
}
function pending() { // whether a point waits for an answer, which is said
  if (asked) say(`${asked.name} waits: move its point here, add one, or cancel.`);
  return asked !== null;
}
async function keep() { // saves what is new on the page; whether that went well
  if (pending()) return false;
  if (place < 0 || place >= study.pages.length || !history.length) return true;
  const [at, turn] = [place, turning];
  try {
    const sent = new Map(clicks);
    const answer = await save(at, sent, known);
    study.pages[at].done = answer.done;
    if (turn !== turning) return false;
    const more = !same([...clicks], [...sent]); // clicked on while the answer was on its way
    takeOver(mapped(answer.clicks));
    if (answer.conflicts.length) {
      say(`Not saved, since the table was changed meanwhile: ${contested(answer.conflicts)}. Once more replaces that.`);
      showState();
      draw();
      return false;
    }
    if (more || asked) return keep();
  } catch (error) {
    say(`Not saved: ${error.message}`);
    return false;
  }
  return true;
}
function advance() { // to the next page that is neither done nor passed, from the start again behind the last
  passed.add(place);
  durations.push((performance.now() - since) / 1000);
  if (durations.length > REMEMBERED) durations.shift();
  show(following(place));
}
function following(at) {
  const count = study.pages.length;
  for (let step = 1; step <= count; step++) {
    const other = (at + step) % count;
    if (!study.pages[other].done && !passed.has(other)) return other;
  }
  return count;
}
async function turn(to) { // to a page by its place, with what is new kept
  if (to < 0 || to >= study.pages.length) return;
  if (await keep()) show(to);
}
async function show(to) {
  const mine = ++turning;
  place = to;
  [clicks, known, history, chosen, confirming, crosshair] = [new Map(), new Map(), [], 0, false, null];
  since = performance.now();
  withdraw();
  say("");
  $("end").hidden = place < study.pages.length;
  document.querySelector("aside").hidden = place >= study.pages.length;
  if (place >= study.pages.length) return end();
  shown = page().slice;
  view.whole = true;
  $("volume").textContent = page().volume;
  document.title = `${page().volume} \u2013 clicks`;
  showStructures();
  showState();
  draw();
  if (document.activeElement === document.body || document.activeElement === null) canvas.focus({ preventScroll: true });
  try {
    const answer = await ask(`page/${place}/clicks`);
    if (mine !== turning) return;
    takeOver(mapped(answer.clicks));
    const open = page().structures.findIndex((name) => !clicks.has(key(name, shown)));
    chosen = history.length ? chosen : Math.max(0, open);
    showState();
    draw();
  } catch (error) {
    if (mine === turning) say(error.message);
  }
  const after = following(place);
  if (after < study.pages.length) frame(after, study.pages[after].slice).catch(() => {});
  for (const near of [shown - 1, shown + 1]) if (near >= 0 && near < depth()) frame(place, near).catch(() => {});
}
function end() {
  const lines = [];
  const line = (tag, text) => { const made = document.createElement(tag); made.textContent = text; lines.push(made); return made; };
  $("volume").textContent = "Clicks";
  document.title = "Clicks";
  showProgress();
  const left = study.pages.filter((one) => !one.done).length;
  line("h2", left ? `The end; ${left} of ${study.pages.length} pages are not complete` : `All ${study.pages.length} pages are done`);
  line("p", `The clicks are in ${study.table}.`);
  if (study.note) line("p", `Then ${study.note}.`);
  if (left) {
    const button = line("button", "Go through those left");
    button.type = "button";
    button.className = "main";
    button.addEventListener("click", () => { passed.clear(); show(following(study.pages.length - 1)); });
  }
  for (const [name, reason] of Object.entries(study.unusable)) line("p", `${name} was left out: ${reason}`);
  $("end").replaceChildren(...lines);
  $("end").querySelector("button")?.focus();
}

// ---- keys, mouse, touch

const ACTIONS = {
  next, undo,
  skip: () => { // and what is new on the page, a point that waits too, is dropped
    passed.add(place);
    show(following(place));
  },
  before: () => go(shown - 1),
  after: () => go(shown + 1),
  home: () => go(page().slice),
  finish: async () => { if (await keep()) show(study.pages.length); },
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  // Pressed by a pointer, a button gives the keys back to the frame; pressed by a key it keeps them.
  if (event.detail && event.target.closest("aside button")) canvas.focus({ preventScroll: true });
  if (button && place < study.pages.length) ACTIONS[button.dataset.do]();
  const answered = event.target.closest("[data-answer]");
  if (answered) answer(answered.dataset.answer);
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STRIDE = 10; // pixels that the crosshair moves with Shift
function moveCrosshair([right, down]) {
  if (asked) answer("leave");
  const [, height, width] = page().shape;
  const from = crosshair || clicks.get(key(page().structures[chosen], shown)) || [Math.floor(width / 2), Math.floor(height / 2)];
  const step = crosshair ? [right, down] : [0, 0];
  crosshair = [Math.min(Math.max(from[0] + step[0], 0), width - 1), Math.min(Math.max(from[1] + step[1], 0), height - 1)];
  say(`Crosshair at ${crosshair[0].toFixed(1)}, ${crosshair[1].toFixed(1)}`);
  draw();
}
const KEYS = {
  Enter: next,
  Backspace: undo,
  Delete: remove,
  s: ACTIONS.skip,
  S: ACTIONS.skip,
  Home: ACTIONS.home,
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => { view.whole = true; draw(); },
  " ": () => crosshair && put(crosshair),
  ",": () => go(shown - 1),
  ".": () => go(shown + 1),
  m: () => answer("move"),
  M: () => answer("move"),
  a: () => answer("add"),
  A: () => answer("add"),
  Escape: () => {
    if (asked) return answer("leave");
    crosshair = null;
    say("");
    draw();
  },
  PageUp: () => turn(place - 1),
  PageDown: () => turn(place + 1),
};
document.addEventListener("keydown", (event) => {
  if (!study || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input") && /^(Arrow|Home|End|Page)/.test(event.key)) return; // a slider's own
  const onButton = event.target.closest("button, summary");
  if (onButton && (event.key === "Enter" || event.key === " ") && !onButton.closest("#structures")) return; // presses it
  if (place >= study.pages.length) {
    if (event.key === "Backspace" || event.key === "PageUp") turn(study.pages.length - 1);
    return;
  }
  let act = KEYS[event.key];
  if (/^[1-9]$/.test(event.key)) act = () => choose(Number(event.key) - 1);
  const arrow = ARROWS[event.key];
  if (arrow) {
    const step = event.shiftKey ? STRIDE : 1;
    act = crosshair || event.shiftKey ? () => moveCrosshair(arrow.map((one) => one * step)) : () => go(shown + arrow[0] + arrow[1]);
  }
  if (!act) return;
  event.preventDefault();
  if (!(event.repeat && (act === next || act === ACTIONS.skip || act === undo))) act();
});

const pointers = new Map(); // pressed ones: id -> [x, y]
let pressed = null; // where a click may be about to happen, and whether it has become a drag
const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  pressed = { start: at(event), dragged: pointers.size > 1 };
});
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before || !pressed) return;
  const now = at(event);
  const other = [...pointers].find(([id]) => id !== event.pointerId);
  if (Math.hypot(now[0] - pressed.start[0], now[1] - pressed.start[1]) > CLOSE) pressed.dragged = true;
  if (!pressed.dragged) return;
  pointers.set(event.pointerId, now);
  if (other) { // two fingers: zoom around the one that rests
    const reach = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
    zoom(reach(now) / Math.max(reach(before), 1), other[1]);
  } else {
    view = { ...view, x: view.x + now[0] - before[0], y: view.y + now[1] - before[1], whole: false };
    draw();
  }
});
canvas.addEventListener("pointerup", (event) => {
  if (!pointers.delete(event.pointerId) || pointers.size || !pressed) return;
  if (!pressed.dragged) {
    crosshair = null;
    put(toFrame(pressed.start));
  }
  pressed = null;
});
canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); pressed = null; });
let turned = 0; // of the wheel, since the last slice
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey) return zoom(Math.exp(-event.deltaY / 300), at(event));
  turned += event.deltaMode === 0 ? event.deltaY / 60 : event.deltaY;
  if (Math.abs(turned) < 1) return;
  go(shown + Math.sign(turned));
  turned = 0;
}, { passive: false });
for (const slider of ["brightness", "contrast"]) {
  $(slider).addEventListener("input", () => draw());
  $(slider).addEventListener("pointerup", () => canvas.focus({ preventScroll: true }));
}
new ResizeObserver(() => draw()).observe($("stage"));
window.addEventListener("beforeunload", (event) => { if (history.length || asked) event.preventDefault(); });

ask("study").then((found) => { study = found; showPages(); return show(study.start); }).catch((error) => say(error.message));
