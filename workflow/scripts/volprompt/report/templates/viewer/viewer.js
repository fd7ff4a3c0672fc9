// The viewer of the report: slices with prompts, reference and prediction, and their surfaces in 3D.
//
// Reads the JSON in #views-data (made by report/views.py) and builds itself inside #viewer, with what palette.js,
// unpacking.js, cuts.js, marks.js and solids.js define before it. Names come from outside and enter the page as text only.
(() => {
  const mount = document.getElementById("viewer");
  const source = document.getElementById("views-data");
  if (!mount || !source) return;
  const data = JSON.parse(source.textContent);

  // ---------------------------------------------------------------- building blocks of the page

  function make(tag, properties = {}, children = []) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "text") element.textContent = value;
      else if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value, { passive: false });
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const say = (text) => mount.replaceChildren(make("p", { class: "viewer-note", text }));
  if (!data) return say("No volume has masks that could be shown.");
  if (typeof DecompressionStream === "undefined") {
    return say("This browser is too old to unpack the volumes; a current one shows them here.");
  }

  const ROLES = { worst: "Worst", median: "Median", best: "Best", example: "Example", volume: "This volume" };
  const { OPPOSITE } = cuts, { INSIDE, OUTSIDE, SCALE_MM } = solids;
  const names = data.structures.map((structure) => structure.name);
  const colours = data.structures.map(({ colour }) => palette.channels(colour));

  const state = {
    configuration: 0,
    role: "worst",
    place: 0,
    round: Infinity, // of corrections; beyond the last one: the last one, however many there are
    shown: { reference: true, prediction: true, prompts: true, difference: false, distance: false },
    planes: false, // whether the two planes across are shown too
    across: [0, 0], // row and column at which these are cut
    flat: { zoom: 1, offset: [0, 0, 0] }, // how far the volume is moved along (slice, y, x), in shares of its sides
    light: { brightness: 100, contrast: 100 }, // percent
    structures: names.map(() => true),
    turn: null,
    zoom: 1,
    moving: false,
    loaded: null,
    beside: null, // another configuration of the same volume, in place of the surfaces: its number, and what is loaded
  };

  // ---------------------------------------------------------------- unpacking

  const { all, unpackedMask } = unpacking;
  const unpacked = new Map();

  function once(key, unpack) {
    if (!unpacked.has(key)) unpacked.set(key, unpack());
    return unpacked.get(key);
  }

  async function load(view) {
    const volume = data.volumes[view.volume];
    const surface = (coded) => unpacking.unpackedSurface(coded, volume, data.step);
    const [picture, reference, ignored, rounds, referenceSurfaces, surfaces] = await Promise.all([
      once(volume, () => unpacking.pictureOf(volume.frames)),
      once(volume.reference, () => all(volume.reference, unpackedMask)),
      once(volume.ignored, () => unpackedMask(volume.ignored)),
      once(view.masks, () => unpacking.unpackedRounds(view)),
      once(volume.surfaces, () => all(volume.surfaces, surface)),
      once(view.surfaces, () => all(view.surfaces, surface)),
    ]);
    return { view, volume, picture, reference, ignored, rounds, referenceSurfaces, surfaces };
  }

  // Values of the frames by volume: unpacked when its planes across are shown for the first time, and then drawn.
  const values = new WeakMap();

  function unpackValues({ volume, picture }) {
    once(picture, () => unpacking.unpackedFrames(picture, volume))
      .then((unpackedValues) => { values.set(volume, unpackedValues); draw(); })
      .catch((error) => { acrossText.textContent = `The planes across cannot be unpacked here (${error.message}).`; });
  }

  // ---------------------------------------------------------------- the page

  const select = make("select", { class: "viewer-select", onchange: () => choose(Number(select.value), state.role) });
  const groups = new Map();
  data.configurations.forEach((configuration, index) => {
    if (!groups.has(configuration.experiment)) {
      groups.set(configuration.experiment, make("optgroup", { label: "Experiment " + configuration.experiment }));
    }
    const text = `${configuration.model}, ${configuration.scheme}`;
    groups.get(configuration.experiment).append(make("option", { value: index, text }));
  });
  select.append(...groups.values());
  const roles = make("div", { class: "viewer-buttons", role: "group", "aria-label": "Volume of this configuration" });
  const roundText = make("label", { for: "viewer-round" });
  const roundDice = make("span", { class: "viewer-round-dice" });
  const roundRange = make("input", {
    class: "viewer-round", id: "viewer-round", type: "range", min: 0, step: 1, oninput: () => goRound(Number(roundRange.value)),
  });
  const rounds = make("div", { class: "viewer-label", hidden: "" }, [
    make("div", { class: "viewer-round-line" }, [roundText, roundDice]), roundRange,
  ]);
  const roundPrinted = make("span", { class: "viewer-printed" });
  const title = make("p", { class: "viewer-title", "aria-live": "polite" });

  const help = make("p", { class: "viewer-note", id: "viewer-help" });
  help.textContent =
    "Slices: wheel or swipe, arrow keys, Page Up and Down, Home, End. On a picture that has the focus: R reference, " +
    "P prediction, C prompts, F differences, 1 to 9 structures, J next prompted slice, T three planes; + and -, or the wheel " +
    "with Ctrl, zoom, and then dragging or Shift and arrow keys move the slice, 0 starts again. Three planes: a click or " +
    "dragging moves the crosshair, wheel and keys the plane that they are on; dragging with Shift, or two fingers, moves " +
    "what is zoomed. 3D: drag or arrow keys turn, wheel or + and - zoom, 0 starts again.";
  // A canvas for each plane, of what `loadedOf` returns. The planes have the numbers of the axes that they are cut at.
  const panesOf = (loadedOf) => [0, 1, 2].map((through) => {
    const canvas = make("canvas", {
      class: "viewer-canvas", tabindex: 0, role: "img", "aria-describedby": "viewer-help",
      onwheel: wheelSlice, onkeydown: keySlice, onpointerdown: swipeStart, onpointermove: swipe,
      onpointerup: swipeEnd, onpointercancel: swipeEnd,
    });
    return { through, canvas, stage: make("div", { class: "viewer-stage" }, [canvas]), loadedOf };
  });
  const ownPanes = panesOf(() => state.loaded), panesBeside = panesOf(() => state.beside.loaded);
  const paneOf = new Map([...ownPanes, ...panesBeside].map((pane) => [pane.canvas, pane]));
  // The plane cut at x stands beside the slices: it has their rows.
  const ORDER = [0, 2, 1];
  const stagesOf = (panes) => make("div", { class: "viewer-planes" }, ORDER.map((through) => panes[through].stage));
  const planesButton = make("button", {
    type: "button", class: "viewer-button", text: "Three planes", "aria-pressed": "false", onclick: () => showPlanes(!state.planes),
  });
  const besideText = make("p", { class: "viewer-caption viewer-of-beside" });
  const besideSelect = make("select", {
    class: "viewer-select viewer-beside",
    onchange: () => compare(besideSelect.value === "" ? null : Number(besideSelect.value)),
  });
  const besideLabel = make("label", { class: "viewer-label" }, [make("span", { text: "Beside it" }), besideSelect]);
  const strip = make("canvas", {
    class: "viewer-strip", "aria-hidden": "true", onpointerdown: pickSlice, onpointermove: (e) => e.buttons && pickSlice(e),
  });
  const range = make("input", {
    class: "viewer-range", type: "range", min: 0, step: 1, "aria-label": "Slice", oninput: () => go(Number(range.value)),
  });
  const sliceText = make("p", { class: "viewer-caption viewer-of-slice", "aria-live": "polite" });
  const acrossRanges = [1, 2].map((axis) => {
    const name = make("span"), value = make("span");
    const slider = make("input", { class: "viewer-cut", type: "range", min: 0, step: 1, oninput: () => move(axis, Number(slider.value)) });
    return { name, value, slider, label: make("label", { class: "viewer-across" }, [name, slider, value]) };
  });
  const acrossText = make("p", { class: "viewer-caption" });
  const acrossBlock = make("div", {}, [...ORDER.slice(1).map((axis) => acrossRanges[axis - 1].label), acrossText]);
  const jumpButton = make("button", { type: "button", class: "viewer-button", text: "Prompted slice", onclick: jump });
  const solid = make("canvas", {
    class: "viewer-canvas viewer-solid", tabindex: 0, role: "img", "aria-describedby": "viewer-help",
    onwheel: wheelSolid, onkeydown: keySolid, onpointerdown: dragStart, onpointermove: drag,
    onpointerup: dragEnd, onpointercancel: dragEnd,
  });
  const solidText = make("p", { class: "viewer-caption" });
  const button = (text, label, onclick) =>
    make("button", { type: "button", class: "viewer-button", text, "aria-label": label, onclick });
  const check = (text, key) => {
    const box = make("input", { type: "checkbox", onchange: () => toggle(key, box.checked) });
    box.checked = state.shown[key];
    return { box, label: make("label", { class: "viewer-check" }, [box, text]) };
  };
  const checks = {
    reference: check("Reference", "reference"),
    prediction: check("Prediction", "prediction"),
    prompts: check("Prompts", "prompts"),
    difference: check("Differences", "difference"),
    distance: check("Colour by distance to the reference", "distance"),
  };
  const scale = make("span", { class: "viewer-scale" }, [
    make("span", { text: `${SCALE_MM} mm inside` }),
    make("span", { class: "viewer-gradient" }),
    make("span", { text: `${SCALE_MM} mm outside` }),
  ]);

  const combinedCells = [make("td"), make("td")];
  const structureRows = names.map((name, index) => {
    const box = make("input", { type: "checkbox", onchange: () => toggleStructure(index, box.checked) });
    box.checked = true;
    const swatch = make("span", { class: "viewer-swatch" });
    swatch.style.background = data.structures[index].colour;
    const cells = [make("td"), make("td")];
    const head = make("th", { scope: "row" }, [make("label", { class: "viewer-check" }, [box, swatch, name])]);
    return { box, cells, row: make("tr", {}, [head, ...cells]) };
  });
  const table = make("table", { class: "viewer-table" }, [
    make("thead", {}, [
      make("tr", {}, ["Dice", "Volume", "This slice"].map((text) => make("th", { scope: "col", text }))),
    ]),
    make("tbody", {}, [
      make("tr", {}, [make("th", { scope: "row", text: "Combined" }), ...combinedCells]),
      ...structureRows.map(({ row }) => row),
    ]),
  ]);

  const anyRounds = data.configurations.some(({ views }) => views.some((view) => view.rounds));
  const key = make("ul", { class: "viewer-key", "aria-label": "Marks" }, [
    ["viewer-mark-prediction", "filled: prediction"],
    ["viewer-mark-reference", "white line: reference"],
    ["viewer-mark-surplus", "differences: predicted, not in the reference"],
    ["viewer-mark-lacking", "differences: in the reference, not predicted"],
    ["viewer-mark-positive", "positive point"],
    ["viewer-mark-negative", "negative point, in its object's colour"],
    ["viewer-mark-corrected", "correcting click, positive"],
    ["viewer-mark-refused", "correcting click, negative"],
    ["viewer-mark-box", "box"],
    ["viewer-mark-dice", "Dice of each slice"],
    ["viewer-mark-prompted", "prompted slice"],
    ["viewer-mark-line", "prompted slice, in the planes across"],
    ["viewer-mark-astray", "a structure is predicted where the reference does not show it"],
  ].filter(([mark]) => anyRounds || !["viewer-mark-corrected", "viewer-mark-refused"].includes(mark))
    .map(([mark, text]) => make("li", {}, [make("span", { class: "viewer-mark " + mark }), text])));
  const besidePanel = make("div", { class: "viewer-panel viewer-second", hidden: "" }, [stagesOf(panesBeside), besideText]);
  const solidPanel = make("div", { class: "viewer-panel viewer-third" }, [
    make("div", { class: "viewer-stage" }, [solid]), solidText,
    make("div", { class: "viewer-buttons viewer-tools" }, [
      button("−", "Smaller", () => zoomBy(1 / 1.25)), button("+", "Larger", () => zoomBy(1.25)),
      button("Start again", "Start again: turn back to the first view", startTurn), checks.distance.label, scale,
    ]),
  ]);
  const root = make("div", { class: "viewer-root" }, [
    make("div", { class: "viewer-controls" }, [
      make("label", { class: "viewer-label" }, [make("span", { text: "Configuration" }), select]), roles, besideLabel, planesButton,
      rounds,
    ]),
    title,
    make("div", { class: "viewer-panels" }, [
      make("div", { class: "viewer-panel viewer-first" }, [stagesOf(ownPanes)]),
      besidePanel,
      make("div", { class: "viewer-panel viewer-steer" }, [
        strip, range, sliceText, acrossBlock,
        make("div", { class: "viewer-buttons viewer-tools" }, [
          button("◀", "Slice before", () => go(state.place - 1)), button("▶", "Next slice", () => go(state.place + 1)),
          jumpButton, button("−", "Smaller slice", () => zoomFlat(1 / 1.25)), button("+", "Larger slice", () => zoomFlat(1.25)),
          button("Whole slice", "Show the whole slice", wholeSlice),
        ]),
        make("div", { class: "viewer-buttons viewer-tools" }, [light("Brightness", "brightness"), light("Contrast", "contrast")]),
      ]),
      solidPanel,
    ]),
    make("div", { class: "viewer-below" }, [
      make("fieldset", { class: "viewer-switches" }, [
        make("legend", { text: "Show" }), checks.reference.label, checks.prediction.label, checks.prompts.label,
        checks.difference.label,
      ]),
      table, key,
    ]),
    help,
  ]);
  mount.replaceChildren(root);

  // ---------------------------------------------------------------- choosing

  let asked = 0;

  // `at` may have a slice, and where the planes across are cut, as shares of the frame's rows and columns.
  async function choose(index, role, at = {}) {
    const configuration = data.configurations[index];
    const known = Object.keys(ROLES).filter((name) => name in configuration.roles);
    state.configuration = index;
    state.role = known.includes(role) ? role : known[0];
    const view = configuration.views[configuration.roles[state.role]];
    const now = ++asked;
    root.dataset.ready = "false";
    let loaded;
    try {
      loaded = await load(view);
    } catch (error) {
      return say(`This volume cannot be unpacked here (${error.message}).`);
    }
    if (now !== asked) return;
    // The same volume under another configuration keeps its slice, so that the two can be compared.
    const before = state.loaded;
    const same = before && before.volume === loaded.volume;
    state.loaded = loaded;
    if (!same) Object.assign(state, { place: view.start, across: [...view.across] });
    if (at.slice !== undefined) state.place = nearestPlace(at.slice);
    if (at.across) state.across = loaded.volume.size.map((count, k) => placeAt(inShown(k + 1, at.across[k]), count));
    range.max = loaded.volume.slices.length - 1;
    select.value = String(index);
    showRoles(configuration);
    const spread = configuration.ranked > 1
      ? `, ${state.role} of ${configuration.ranked} scored volumes by combined Dice` : "";
    const { experiment, model, scheme } = configuration;
    const printed = make("span", { class: "viewer-printed", text: `; experiment ${experiment}, ${model}, ${scheme}` });
    title.replaceChildren(make("strong", { text: loaded.volume.name }), spread, printed, roundPrinted);
    const has = loaded.volume.reference.some((mask) => mask !== null);
    checks.reference.box.disabled = checks.distance.box.disabled = checks.difference.box.disabled = !has;
    if (!same) Object.assign(state.flat, { zoom: 1, offset: [0, 0, 0] });
    fitStages();
    rounds.hidden = !lastRound();
    roundRange.max = String(lastRound());
    root.dataset.configuration = String(index);
    root.dataset.role = state.role;
    root.dataset.volume = loaded.volume.name;
    if (!state.turn) startTurn();
    offerBeside();
    showPlanes(state.planes || Boolean(at.across));
    showRound();
    root.dataset.ready = "true";
  }

  function showRoles(configuration) {
    const focused = roles.contains(document.activeElement) ? document.activeElement.dataset.role : null;
    roles.replaceChildren(...Object.keys(ROLES).filter((role) => role in configuration.roles).map((role) => {
      const value = configuration.views[configuration.roles[role]].dice.combined;
      return make("button", {
        type: "button", class: "viewer-button", "data-role": role, "aria-pressed": String(role === state.role),
        text: ROLES[role] + (value === undefined ? "" : " " + digits(value)),
        onclick: () => choose(state.configuration, role),
      });
    }));
    roles.hidden = roles.children.length < 2; // nothing to choose: the table has the Dice
    if (focused) [...roles.children].find((made) => made.dataset.role === focused)?.focus();
  }

  const digits = (value) => (value === undefined || value === null ? "–" : value.toFixed(3));

  // ---------------------------------------------------------------- a second configuration beside

  const viewBeside = (index) => data.configurations[index].views.find(({ volume }) => data.volumes[volume] === state.loaded.volume);

  // What can stand beside: the configurations that show this volume too. One that stands there stays if it can.
  function offerBeside() {
    const before = state.beside?.index ?? null;
    const can = data.configurations.map((_, index) => index).filter((index) => index !== state.configuration && viewBeside(index));
    besideSelect.replaceChildren(make("option", { value: "", text: "Surfaces in 3D" }), ...can.map((index) => {
      const { model, scheme } = data.configurations[index];
      return make("option", { value: index, text: `${model}, ${scheme}` });
    }));
    besideLabel.hidden = !can.length;
    state.beside = null;
    compare(can.includes(before) ? before : null);
  }

  let compared = 0;

  async function compare(index) {
    const now = ++compared;
    const loaded = index === null ? null : await load(viewBeside(index)).catch(() => null);
    if (now !== compared) return;
    state.beside = loaded && { index, loaded };
    besideSelect.value = loaded ? String(index) : "";
    solidPanel.hidden = Boolean(loaded);
    besidePanel.hidden = !loaded;
    root.dataset.beside = loaded ? String(index) : "";
    showBeside();
    showCrosshair();
  }

  function showBeside() {
    if (!state.beside) return;
    const { loaded, index } = state.beside, { model, scheme } = data.configurations[index];
    const { dice, slice_dice } = ofRound(loaded);
    const round = lastRound(loaded) ? `, round ${shownRound(loaded)} of ${lastRound(loaded)}` : "";
    const text = `${model}, ${scheme}${round}: Dice ${digits(dice.combined)}, this slice ${digits(slice_dice[state.place]?.[0])}`;
    besideText.textContent = text;
    panesBeside[0].canvas.setAttribute("aria-label", `${loaded.volume.name}, slice ${loaded.volume.slices[state.place]}, ${text}`);
  }

  // ---------------------------------------------------------------- rounds of corrections

  const lastRound = (loaded = state.loaded) => loaded.rounds.length - 1;
  const shownRound = (loaded = state.loaded) => Math.min(state.round, lastRound(loaded));
  // Dice, Dice by slice and structures by slice of the shown round; those of the last one are the view's own.
  const ofRound = (loaded = state.loaded) => loaded.view.rounds?.[shownRound(loaded)] ?? loaded.view;
  const shownClicks = (loaded = state.loaded) => (loaded.view.clicks ?? []).filter(([round]) => round <= shownRound(loaded));

  function goRound(round) {
    if (!state.loaded) return;
    state.round = round < lastRound() ? round : Infinity;
    showRound();
  }

  function showRound() {
    const { dice } = ofRound(), { slices } = state.loaded.volume;
    const text = `Round ${shownRound()} of ${lastRound()}`;
    const value = dice.combined === undefined ? "" : `Dice ${digits(dice.combined)}`;
    roundText.textContent = text;
    roundDice.textContent = value;
    roundPrinted.textContent = lastRound() ? `; ${text}` : "";
    roundRange.value = String(shownRound());
    roundRange.setAttribute("aria-valuetext", [text, value].filter(Boolean).join(", "));
    root.dataset.round = String(shownRound());
    structureRows.forEach(({ cells }, k) => { cells[0].textContent = digits(dice[names[k]]); });
    combinedCells[0].textContent = digits(dice.combined);
    const marked = promptedPlaces();
    jumpButton.hidden = !marked.length || marked.length > slices.length / 2;
    go(state.place);
  }

  // Whether a structure is predicted on a slice on which the reference does not show it.
  function isAstray(place, structure) {
    const { volume } = state.loaded, { slice_dice, present } = ofRound();
    const has = (bits) => Math.floor(bits / 2 ** structure) % 2 === 1;
    const scores = slice_dice[place] ?? [];
    // A structure that no reference shows anywhere has no Dice.
    return (scores[structure + 1] ?? null) !== null && has(present[place]) && !has(volume.present[place]);
  }

  // Places of the slices with a prompt or a click.
  function promptedPlaces(loaded = state.loaded) {
    const { view, volume } = loaded;
    const prompted = new Set([...view.prompts.map((prompt) => prompt.slice), ...shownClicks(loaded).map(([, , slice]) => slice)]);
    return volume.slices.flatMap((slice, place) => (prompted.has(slice) ? [place] : []));
  }

  // ---------------------------------------------------------------- three planes

  const planeOf = ({ through }) => cuts.planesOf(state.loaded.volume)[through];
  const shownPanes = () => [...ownPanes, ...(state.beside ? panesBeside : [])].filter(({ through }) => state.planes || !through);
  const placeAt = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
  const nearestPlace = (slice) => {
    const { volume } = state.loaded;
    return cuts.standing(volume)[Math.min(Math.max(slice - volume.first, 0), volume.extent_slices - 1)];
  };

  // Where the planes are cut along an axis: the place of the slice, a row or a column of pixels; and the last of these.
  const at = (axis) => (axis ? state.across[axis - 1] : state.place);
  const last = (axis) => (axis ? state.loaded.volume.size[axis - 1] : state.loaded.volume.slices.length) - 1;

  // The same, or another one, as a share of the shown part.
  function shareOf(axis, index = at(axis)) {
    const { slices, first, extent_slices } = state.loaded.volume;
    return axis ? (index + 0.5) / (last(axis) + 1) : (slices[index] - first + 0.5) / extent_slices;
  }

  // Along y or x: a share of the shown part in millimetres from the frame's edge, the frame's size, and the way back from a
  // share of the frame. Which part is shown can change with the masks, so that nothing that lasts counts from it.
  const fromEdge = (axis) => state.loaded.volume.outside_mm[axis - 1][0] + shareOf(axis) * state.loaded.volume.extent_mm[axis];
  function frameMm(axis) {
    const { outside_mm, extent_mm } = state.loaded.volume;
    return outside_mm[axis - 1][0] + extent_mm[axis] + outside_mm[axis - 1][1];
  }
  const inShown = (axis, share) => (share * frameMm(axis) - state.loaded.volume.outside_mm[axis - 1][0])
    / state.loaded.volume.extent_mm[axis];

  function move(axis, index) {
    if (!state.loaded) return;
    if (!axis) return go(index);
    state.across[axis - 1] = Math.min(Math.max(index, 0), last(axis));
    showCrosshair();
  }

  function showPlanes(on) {
    state.planes = on;
    planesButton.setAttribute("aria-pressed", String(on));
    root.classList.toggle("viewer-three", on);
    acrossBlock.hidden = !on;
    for (const { through, stage, canvas } of paneOf.values()) {
      if (!on && through && canvas === document.activeElement) ownPanes[0].canvas.focus({ preventScroll: true });
      stage.hidden = !on && through > 0;
    }
    if (state.loaded) showCrosshair();
  }

  // The stages of the planes are as wide and high as these, at one scale; thin ones have room for their letters. The two
  // planes across stand below each other if both fit beside the slices.
  function fitStages() {
    const planes = cuts.planesOf(state.loaded.volume), least = 0.28 * Math.max(...state.loaded.volume.extent_mm);
    const wide = planes.map(({ right }) => Math.max(right.mm, least)), high = planes.map(({ down }) => Math.max(down.mm, least));
    for (const { through, stage } of paneOf.values()) {
      stage.style.setProperty("--wide", wide[through]);
      stage.style.setProperty("--high", high[through]);
    }
    const stacked = high[1] + high[2] <= high[0], beside = stacked ? Math.max(wide[1], wide[2]) : wide[1] + wide[2];
    root.classList.toggle("viewer-stacked", stacked);
    root.style.setProperty("--columns", `minmax(0, ${wide[0]}fr) minmax(0, ${beside}fr)`);
    root.style.setProperty("--all-wide", wide[0] + beside);
    root.style.setProperty("--widest", Math.max(...wide));
    root.style.setProperty("--highest", Math.max(...high));
  }

  function showCrosshair() {
    const { volume } = state.loaded, planes = cuts.planesOf(volume);
    root.dataset.across = state.across.join(" ");
    acrossRanges.forEach(({ name, value, slider }, k) => {
      const axis = k + 1, kind = planes[axis].name;
      const where = `${fromEdge(axis).toFixed(1)} mm from ${OPPOSITE[volume.axes[axis]]}`;
      name.textContent = kind;
      value.textContent = where;
      Object.assign(slider, { max: String(last(axis)), value: String(at(axis)) });
      slider.setAttribute("aria-label", `${kind} plane`);
      slider.setAttribute("aria-valuetext", where);
      const own = `${volume.name}, ${kind} plane across, ${where}`;
      ownPanes[axis].canvas.setAttribute("aria-label", own);
      if (state.beside) panesBeside[axis].canvas.setAttribute("aria-label", `${own}, ${besideText.textContent}`);
    });
    const stored = cuts.storedInWords(volume), thick = volume.slices.length < volume.extent_slices;
    acrossText.textContent = `The planes across are cut through ${stored} of the shown part`
      + (thick ? ", each drawn as thick as the gap that it stands for." : ".");
    if (state.planes && state.flat.zoom > 1) keepCrosshairInView();
    draw();
  }

  // Move what is zoomed so that the crosshair does not leave any plane.
  function keepCrosshairInView() {
    for (const pane of ownPanes) {
      const { canvas } = pane, box = boxOf(pane), { down, right } = planeOf(pane);
      for (const [side, start, length, room] of [
        [right, box.left, box.width, canvas.clientWidth], [down, box.top, box.height, canvas.clientHeight],
      ]) {
        const place = start + shownShare(side) * length, edge = Math.min(12, room / 4);
        const lacking = Math.max(0, edge - place) - Math.max(0, place - (room - edge));
        moveAlong(side, lacking / length);
      }
    }
  }

  // The same from a plane's left or upper edge.
  const shownShare = (side, index) => (side.backwards ? 1 - shareOf(side.axis, index) : shareOf(side.axis, index));

  // The shares of the volume's sides at a pointer, by axis; undefined along the plane's own.
  function sharesAt(pane, event) {
    const frame = pane.canvas.getBoundingClientRect(), box = boxOf(pane), { down, right } = planeOf(pane);
    const shares = [];
    for (const [{ axis, backwards }, share] of [
      [right, (event.clientX - frame.left - box.left) / box.width], [down, (event.clientY - frame.top - box.top) / box.height],
    ]) shares[axis] = backwards ? 1 - share : share;
    return shares;
  }

  // The crosshair goes to the pointer: the other planes are cut there.
  function crossAt(event) {
    const { volume } = state.loaded;
    const shares = sharesAt(paneOf.get(event.currentTarget), event);
    for (const axis of [1, 2]) {
      if (shares[axis] !== undefined) state.across[axis - 1] = placeAt(shares[axis], last(axis) + 1);
    }
    go(shares[0] === undefined ? state.place : cuts.standing(volume)[placeAt(shares[0], volume.extent_slices)]);
  }

  // ---------------------------------------------------------------- moving through slices

  function go(place) {
    if (!state.loaded) return;
    const { view, volume } = state.loaded;
    state.place = Math.min(Math.max(place, 0), volume.slices.length - 1);
    const slice = volume.slices[state.place];
    const scores = ofRound().slice_dice[state.place] || [];
    const prompted = view.prompts.some((prompt) => prompt.slice === slice);
    const corrected = [...new Set(shownClicks().filter(([, , clicked]) => clicked === slice).map(([round]) => round))];
    range.value = String(state.place);
    root.dataset.slice = String(slice);
    combinedCells[1].textContent = digits(scores[0]);
    structureRows.forEach(({ cells }, k) => { cells[1].textContent = digits(scores[k + 1]); });
    const astray = names.filter((_, k) => isAstray(state.place, k));
    const few = volume.slices.length < volume.extent_slices ? `, ${volume.slices.length} of them shown` : "";
    const notes = [prompted ? "prompted" : "", corrected.length ? `corrected in round ${corrected.join(", ")}` : "",
      astray.length ? `${astray.join(", ")} predicted, not in the reference` : ""].filter(Boolean);
    const text = `Slice ${slice} (0 to ${volume.depth - 1})${few}` + (notes.length ? ": " + notes.join(", ") : "");
    sliceText.textContent = text;
    range.setAttribute("aria-valuetext", `${text}${scores.length ? ", Dice " + digits(scores[0]) : ""}`);
    showBeside();
    ownPanes[0].canvas.setAttribute("aria-label", `${volume.name}${lastRound() ? ", " + roundText.textContent : ""}, ${text}`);
    showCrosshair();
  }

  function jump() {
    const marked = promptedPlaces();
    if (marked.length) go(marked.find((place) => place > state.place) ?? marked[0]);
  }

  let rolled = 0;

  function wheelSlice(event) {
    if (!state.loaded) return;
    if (event.ctrlKey) { // and a pinch on a touch pad
      event.preventDefault();
      zoomFlat(Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.01 : 0.3)), event);
      return;
    }
    const axis = paneOf.get(event.currentTarget).through;
    const ahead = event.deltaY > 0;
    if (at(axis) === (ahead ? last(axis) : 0)) { rolled = 0; return; } // at the end the page itself scrolls on
    event.preventDefault();
    rolled += event.deltaMode === 0 ? event.deltaY : event.deltaY * 40;
    if (Math.abs(rolled) < 30) return;
    rolled = 0;
    move(axis, at(axis) + (ahead ? 1 : -1));
  }

  function keySlice(event) {
    if (!state.loaded || event.ctrlKey || event.altKey || event.metaKey) return;
    const pane = paneOf.get(event.currentTarget), axis = pane.through;
    const moved = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] }[event.key];
    const zoomed = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key];
    if (event.shiftKey && moved) {
      event.preventDefault();
      moveFlat(pane, moved[0] * 0.1, moved[1] * 0.1);
      return;
    }
    if (zoomed || event.key === "0") {
      event.preventDefault();
      if (zoomed) zoomFlat(zoomed); else wholeSlice();
      return;
    }
    const to = {
      ArrowUp: at(axis) - 1, ArrowLeft: at(axis) - 1, ArrowDown: at(axis) + 1, ArrowRight: at(axis) + 1,
      PageUp: at(axis) - 5, PageDown: at(axis) + 5, Home: 0, End: last(axis),
    }[event.key];
    if (to !== undefined) { event.preventDefault(); move(axis, to); } else keySwitch(event);
  }

  function keySwitch(event) {
    const keys = { r: "reference", p: "prediction", c: "prompts", f: "difference", d: "distance" };
    const letter = event.key.toLowerCase();
    if (keys[letter] && !checks[keys[letter]].box.disabled) toggle(keys[letter], !state.shown[keys[letter]]);
    else if (letter === "j") jump();
    else if (letter === "t") showPlanes(!state.planes);
    else if (/^[1-9]$/.test(letter) && Number(letter) <= names.length) {
      toggleStructure(Number(letter) - 1, !state.structures[Number(letter) - 1]);
    } else return;
    event.preventDefault();
  }

  function toggle(key, on) {
    state.shown[key] = on;
    checks[key].box.checked = on;
    draw();
  }

  function toggleStructure(index, on) {
    state.structures[index] = on;
    structureRows[index].box.checked = on;
    draw();
  }

  // ---------------------------------------------------------------- zoom, place and light of the slice

  const MOST = 16;

  // Zoom, so that the point under the pointer stays where it is; without one, the crosshair, or the middle.
  function zoomFlat(factor, event) {
    if (!state.loaded) return;
    const zoom = Math.min(MOST, Math.max(1, state.flat.zoom * factor));
    const grown = zoom / state.flat.zoom, { offset } = state.flat;
    const shares = event ? sharesAt(paneOf.get(event.currentTarget), event) : [];
    const stays = (axis) => (shares[axis] !== undefined ? shares[axis] - 0.5 : state.planes ? shareOf(axis) - 0.5 : -offset[axis]);
    state.flat.offset = offset.map((value, axis) => value / grown + stays(axis) * (1 / grown - 1));
    state.flat.zoom = zoom;
    moveFlat(ownPanes[0], 0, 0);
  }

  // Move a plane by shares of its own width and height, and the others with it.
  function moveFlat(pane, x, y) {
    const { down, right } = planeOf(pane);
    moveAlong(right, x);
    moveAlong(down, y);
    root.dataset.zoom = state.flat.zoom.toFixed(3);
    draw();
  }

  // No edge comes farther than to the middle.
  function moveAlong({ axis, backwards }, share) {
    const { zoom, offset } = state.flat;
    const value = offset[axis] + (backwards ? -share : share);
    offset[axis] = zoom > 1 ? Math.min(0.5, Math.max(-0.5, value)) : 0;
  }

  function wholeSlice() {
    Object.assign(state.flat, { zoom: 1, offset: [0, 0, 0] });
    moveFlat(ownPanes[0], 0, 0);
  }

  function light(text, key) {
    const slider = make("input", {
      type: "range", min: 20, max: 300, step: 5, value: state.light[key], class: "viewer-light",
      oninput: () => { state.light[key] = Number(slider.value); draw(); },
      ondblclick: () => { slider.value = "100"; state.light[key] = 100; draw(); },
    });
    return make("label", { class: "viewer-check" }, [text, slider]);
  }

  let swiped = null;
  const touching = new Map(); // pointers on the pictures, by their number

  function swipeStart(event) {
    touching.set(event.pointerId, event);
    swiped = { x: event.clientX, y: event.clientY, place: state.place, far: touching.size > 1 };
    event.currentTarget.setPointerCapture(event.pointerId);
    event.currentTarget.focus({ preventScroll: true });
    // A finger may want to scroll the page: it moves the crosshair once it goes sideways, or where it leaves.
    if (crosses(event) && event.pointerType !== "touch") crossAt(event);
  }

  // Whether a finger scrolls the page: it does until it has gone some way, and for good if that was not sideways.
  function scrolls(start, { pointerType }, right, down) {
    if (pointerType !== "touch") return false;
    if (start.sideways === undefined && Math.hypot(right, down) > 6) start.sideways = Math.abs(right) > Math.abs(down);
    return !start.sideways;
  }

  const crosses = (event) => state.loaded && state.planes && !event.shiftKey;

  function swipeEnd(event) {
    if (event.type === "pointerup" && event.pointerType === "touch" && crosses(event) && swiped && !swiped.far) crossAt(event);
    touching.delete(event.pointerId);
  }

  function swipe(event) {
    if (!event.buttons || !swiped || !state.loaded) return;
    const pane = paneOf.get(event.currentTarget);
    if (touching.size === 2 && touching.has(event.pointerId)) return pinch(pane, event);
    touching.set(event.pointerId, event);
    const [right, down] = [event.clientX - swiped.x, event.clientY - swiped.y];
    if (scrolls(swiped, event, right, down)) return;
    swiped.far ||= Math.hypot(right, down) > 6;
    if (crosses(event)) {
      if (swiped.far || event.pointerType !== "touch") crossAt(event);
    } else if (state.flat.zoom > 1) {
      const box = boxOf(pane);
      moveFlat(pane, right / box.width, down / box.height);
      Object.assign(swiped, { x: event.clientX, y: event.clientY });
    } else if (!state.planes) {
      const step = Math.max(6, pane.canvas.clientWidth / state.loaded.volume.slices.length);
      const place = swiped.place + Math.round(right / step);
      if (place !== state.place) go(place);
    }
  }

  // Two fingers zoom about the point between them, and take it along.
  function pinch(pane, event) {
    const middleOf = ([one, other]) => ({
      currentTarget: pane.canvas, clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2,
    });
    const apart = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const before = [...touching.values()];
    touching.set(event.pointerId, event);
    const now = [...touching.values()], box = boxOf(pane), [from, to] = [middleOf(before), middleOf(now)];
    moveFlat(pane, (to.clientX - from.clientX) / box.width, (to.clientY - from.clientY) / box.height);
    if (apart(before)) zoomFlat(apart(now) / apart(before), to);
  }

  function pickSlice(event) {
    if (!state.loaded) return;
    event.preventDefault();
    const box = strip.getBoundingClientRect();
    const last = state.loaded.volume.slices.length - 1;
    go(Math.round(((event.clientX - box.left - EDGE) / (box.width - 2 * EDGE)) * last));
  }

  // ---------------------------------------------------------------- drawing

  const EDGE = 8; // half of the slider's thumb: the strip's first and last slice lie where the thumb does
  let waiting = false;

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (!state.loaded) return;
      scale.hidden = !(state.shown.distance && state.shown.prediction && hasReference());
      const unpacked = values.has(state.loaded.volume);
      if (state.planes && !unpacked) unpackValues(state.loaded);
      for (const pane of shownPanes()) if (!pane.through || unpacked) drawPane(pane);
      drawStrip();
      if (!state.beside) drawSolid();
      root.dataset.planes = String(state.planes && unpacked);
      noteAddress();
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    });
  }

  const hasReference = () => state.loaded.volume.reference.some((mask) => mask !== null);

  // The canvas in device pixels; returns its context, scaled so that one unit is one CSS pixel.
  function prepared(canvas) {
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.lineJoin = "round"; // from the first drawing on, as after any
    return { context, width, height, ratio };
  }

  // Where a plane lies in its canvas. The planes of a configuration have one scale.
  function boxOf(pane) {
    const { zoom, offset } = state.flat, { down, right } = planeOf(pane), { clientWidth: width, clientHeight: height } = pane.canvas;
    const group = shownPanes().filter(({ loadedOf }) => loadedOf === pane.loadedOf);
    const per_mm = zoom * Math.min(...group.map((other) => {
      const sides = planeOf(other);
      return Math.min(other.canvas.clientWidth / sides.right.mm, other.canvas.clientHeight / sides.down.mm);
    }));
    const box = { width: right.mm * per_mm, height: down.mm * per_mm, per_mm };
    const moved = ({ axis, backwards }) => (backwards ? -offset[axis] : offset[axis]);
    box.left = (width - box.width) / 2 + moved(right) * box.width;
    box.top = (height - box.height) / 2 + moved(down) * box.height;
    return box;
  }

  // Whether a frame's pixels are far from square.
  function elongated({ extent_mm: [, high_mm, wide_mm], size: [rows, columns] }) {
    const aspect = (high_mm / rows) / (wide_mm / columns);
    return Math.max(aspect, 1 / aspect) > 1.5;
  }

  // A plane of the volume under the configuration that its pane shows.
  function drawPane(pane) {
    const loaded = pane.loadedOf(), { volume, view, picture, reference } = loaded;
    const { context, width, height } = prepared(pane.canvas);
    if (!width || !height) return; // hidden; drawn once it has a size
    const plane = planeOf(pane), box = boxOf(pane);
    const [rows, columns] = pane.through ? [plane.down.count, plane.right.count] : volume.size;
    // Nothing is made up between two slices, where they are cut across or are the rows or columns of the model's frames.
    const square = pane.through > 0 || elongated(volume);
    context.imageSmoothingEnabled = !square;
    context.imageSmoothingQuality = "high";
    const { brightness, contrast } = state.light;
    if (brightness !== 100 || contrast !== 100) context.filter = `brightness(${brightness}%) contrast(${contrast}%)`;
    if (pane.through) {
      const cut = cuts.cutValues(values.get(volume), volume, plane, at(pane.through));
      marks.grey(context, cuts.arranged(cut, volume, plane), rows, columns, box);
    } else {
      const column = state.place % volume.columns, row = Math.floor(state.place / volume.columns);
      context.drawImage(picture, column * columns, row * rows, columns, rows, box.left, box.top, box.width, box.height);
    }
    context.filter = "none";
    const pixels = (coded) => coded && (pane.through
      ? cuts.arranged(cuts.cutMask(coded, volume, plane, at(pane.through)), volume, plane)
      : unpacking.maskOfSlice(coded, state.place, rows * columns));
    if (state.shown.prediction) {
      loaded.rounds[shownRound(loaded)].forEach((coded, k) => {
        const mask = state.structures[k] && pixels(coded);
        if (!mask) return;
        if (!state.shown.difference) marks.fill(context, mask, rows, columns, colours[k], box);
        marks.outline(context, mask, rows, columns, box, [[1.4, data.structures[k].colour]], square);
      });
    }
    if (state.shown.difference && hasReference()) drawDifferences(context, loaded, pixels, rows, columns, box);
    if (state.shown.reference) {
      reference.forEach((coded, k) => {
        const mask = state.structures[k] && pixels(coded);
        const strokes = [[3, palette.faint(palette.rim, 0.45)], [1.4, palette.outline]];
        if (mask) marks.outline(context, mask, rows, columns, box, strokes, square);
      });
    }
    if (state.planes) marks.crosshair(context, box, shownShare(plane.right), shownShare(plane.down));
    if (state.shown.prompts && pane.through) {
      const places = promptedPlaces(loaded), upright = plane.right.axis === 0, side = upright ? plane.right : plane.down;
      const shares = places.map((place) => shownShare(side, place));
      marks.slicesAcross(context, box, width, height, shares, { upright, lines: places.length <= volume.slices.length / 2 });
    } else if (state.shown.prompts) {
      const slice = volume.slices[state.place];
      const prompts = view.prompts.filter((prompt) => prompt.slice === slice && state.structures[prompt.structure]);
      marks.prompts(context, prompts, data.structures, box);
      const clicks = shownClicks(loaded).filter(([, structure, clicked]) => clicked === slice && state.structures[structure]);
      marks.clicks(context, clicks, data.structures, box);
    }
    if (state.planes) marks.write(context, plane.name, 10, width < 170 ? 28 : 14, { align: "left" }); // below the letter
    marks.letters(context, plane, width, height, pane.through ? 18 : 10);
    marks.bar(context, box, width, height);
  }

  // What only the prediction has, and what only the reference has, of the structures that are shown, where scores count.
  function drawDifferences(context, loaded, pixels, rows, columns, box) {
    const shown = loaded.rounds[shownRound(loaded)];
    const surplus = new Uint8Array(rows * columns), lacking = new Uint8Array(rows * columns), ignored = pixels(loaded.ignored);
    names.forEach((_, k) => {
      if (!state.structures[k]) return;
      const predicted = pixels(shown[k]), wanted = pixels(loaded.reference[k]);
      for (let pixel = 0; pixel < rows * columns; pixel++) {
        if (ignored?.[pixel]) continue;
        const [here, there] = [predicted?.[pixel] ?? 0, wanted?.[pixel] ?? 0];
        if (here && !there) surplus[pixel] = 1;
        if (there && !here) lacking[pixel] = 1;
      }
    });
    marks.fill(context, surplus, rows, columns, OUTSIDE, box, 200);
    marks.fill(context, lacking, rows, columns, INSIDE, box, 200);
  }

  // Dice of every slice as a bar, marks of prompted slices, and slices with a prediction but no reference.
  function drawStrip() {
    const { volume } = state.loaded, { slice_dice } = ofRound();
    const { context, width, height } = prepared(strip);
    if (!width || !height) return;
    const count = volume.slices.length, marked = new Set(promptedPlaces());
    const step = count > 1 ? (width - 2 * EDGE) / (count - 1) : 0;
    const tall = height - 9, bar = Math.max(1, Math.min(step || 8, 14) - 1);
    context.fillStyle = palette.faint(palette.bars, 0.18);
    context.fillRect(EDGE - bar / 2, 0, width - 2 * EDGE + bar, tall);
    for (let place = 0; place < count; place++) {
      const x = EDGE + place * step;
      const value = slice_dice.length ? slice_dice[place][0] : null;
      if (value !== null) {
        context.fillStyle = palette.bars;
        context.fillRect(x - bar / 2, tall * (1 - value), bar, tall * value);
        if (names.some((_, k) => isAstray(place, k))) {
          context.fillStyle = palette.surplus;
          context.fillRect(x - bar / 2, tall - 4, bar, 4);
        }
      }
      if (marked.has(place)) {
        context.fillStyle = getComputedStyle(strip).color; // the ink of the page
        context.beginPath();
        context.moveTo(x, tall + 1);
        context.lineTo(x - 4, height);
        context.lineTo(x + 4, height);
        context.fill();
      }
    }
    const x = EDGE + state.place * step;
    context.fillStyle = palette.outline;
    context.fillRect(x - 2.5, 0, 5, tall);
    context.fillStyle = palette.dark;
    context.fillRect(x - 1.5, 0, 3, tall);
  }

  // ---------------------------------------------------------------- surfaces

  const { aboutX, aboutY, times } = solids; // rotations are 3 x 3 matrices in rows

  function startTurn() {
    state.turn = times(aboutX(0.3), aboutY(0.6));
    state.zoom = 1;
    turned();
  }

  function turnBy(right, down) {
    state.turn = times(times(aboutX(down), aboutY(right)), state.turn);
    turned();
  }

  function zoomBy(factor) {
    state.zoom = Math.min(Math.max(state.zoom * factor, 0.5), 6);
    turned();
  }

  function turned() {
    root.dataset.turn = state.turn.map((value) => value.toFixed(3)).join(" ");
    root.dataset.zoom = state.zoom.toFixed(3);
    draw();
  }

  function wheelSolid(event) {
    if (event.ctrlKey || !state.loaded) return;
    const factor = Math.exp(-Math.sign(event.deltaY) * 0.12);
    if (state.zoom * factor < 0.5 || state.zoom * factor > 6) return; // at the end the page itself scrolls on
    event.preventDefault();
    zoomBy(factor);
  }

  function keySolid(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const angle = Math.PI / 18;
    const turns = { ArrowLeft: [-angle, 0], ArrowRight: [angle, 0], ArrowUp: [0, -angle], ArrowDown: [0, angle] };
    if (turns[event.key]) turnBy(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.25);
    else if (event.key === "-") zoomBy(1 / 1.25);
    else if (event.key === "0" || event.key === "Home") startTurn();
    else return keySwitch(event);
    event.preventDefault();
  }

  let dragged = null;

  function dragStart(event) {
    dragged = { x: event.clientX, y: event.clientY };
    solid.setPointerCapture(event.pointerId);
    solid.focus({ preventScroll: true });
  }

  function drag(event) {
    if (!dragged) return;
    const [right, down] = [event.clientX - dragged.x, event.clientY - dragged.y];
    if (scrolls(dragged, event, right, down)) return;
    state.moving = true;
    turnBy(right * 0.01, down * 0.01);
    Object.assign(dragged, { x: event.clientX, y: event.clientY });
  }

  function dragEnd() {
    dragged = null;
    state.moving = false;
    draw();
  }

  const drawnSurfaces = document.createElement("canvas");
  let drawnFor = "";

  function drawSolid() {
    const { volume, surfaces, referenceSurfaces } = state.loaded;
    const { context, width, height, ratio } = prepared(solid);
    if (!width || !height) return;
    // Finer than the screen while nothing moves, for smooth edges.
    const fine = state.moving ? 1 : Math.max(2, ratio);
    const columns = Math.round(width * fine), rows = Math.round(height * fine);
    const unit = (state.zoom * 1.35 * Math.min(width, height)) / Math.hypot(...volume.extent_mm);
    const both = state.shown.prediction && state.shown.reference;
    const { reference, prediction, distance } = state.shown;
    // Another slice moves only the frame: the surfaces are drawn again when something about them has changed.
    const wanted = JSON.stringify([
      state.configuration, state.role, columns, rows, state.zoom, state.turn, reference, prediction, distance,
      state.structures,
    ]);
    if (wanted !== drawnFor) {
      drawSurfaces({ columns, rows, unit: unit * fine, turn: state.turn }, both);
      drawnFor = wanted;
    }
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(drawnSurfaces, 0, 0, width, height);
    drawFrames(context, volume, width, height, unit);
    const any = surfaces.some(Boolean) || referenceSurfaces.some(Boolean);
    solidText.textContent = !any ? "No surfaces: left out for the size of this page, or nothing to show."
      : both ? `Solid: prediction; translucent: reference; ${state.planes ? "frames: the three planes" : "frame: this slice"}.`
      : state.planes ? "Frames: the three planes." : "Frame: this slice.";
    if (any && shownRound() < lastRound()) solidText.textContent += ` Predicted surfaces are those of round ${lastRound()}.`;
    const { model, scheme } = data.configurations[state.configuration];
    solid.setAttribute("aria-label", `Surfaces of ${volume.name} in 3D, ${model}, ${scheme}, slice ${volume.slices[state.place]}`);
  }

  function drawSurfaces(camera, both) {
    const { surfaces, referenceSurfaces } = state.loaded;
    const { columns, rows } = camera;
    const opaque = solids.buffers(columns, rows), clear = solids.buffers(columns, rows);
    names.forEach((_, k) => {
      if (!state.structures[k]) return;
      if (state.shown.prediction && surfaces[k]) {
        const byDistance = state.shown.distance && surfaces[k].distances;
        const colourOf = byDistance ? solids.distanceColour(surfaces[k].distances, data.step) : () => colours[k];
        solids.rasterise(surfaces[k], camera, opaque, colourOf);
      }
      if (state.shown.reference && referenceSurfaces[k]) {
        solids.rasterise(referenceSurfaces[k], camera, both ? clear : opaque, () => (both ? palette.channels(palette.outline) : colours[k]));
      }
    });
    drawnSurfaces.width = columns;
    drawnSurfaces.height = rows;
    const context = drawnSurfaces.getContext("2d");
    context.putImageData(solids.composed(context, opaque, clear, columns, rows), 0, 0);
  }

  // The borders of the planes that are shown, and the patient's directions, over the surfaces.
  function drawFrames(context, volume, width, height, unit) {
    const [deep, high, wide] = volume.extent_mm;
    const sign = volume.mirrored ? -1 : 1;
    const onScreen = (x, y, depth) => {
      const t = state.turn;
      return [width / 2 + unit * (t[0] * x + t[1] * y + t[2] * depth), height / 2 - unit * (t[3] * x + t[4] * y + t[5] * depth)];
    };
    context.lineWidth = 1;
    context.strokeStyle = palette.faint(palette.outline, 0.55);
    for (const axis of state.planes ? [0, 1, 2] : [0]) {
      const middle = (shareOf(axis) - 0.5) * volume.extent_mm[axis];
      const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map((signs) => {
        const ends = [deep, high, wide].map((long, other) => (other === axis ? middle : (signs.shift() * long) / 2));
        return onScreen(ends[2], -ends[1], sign * ends[0]);
      });
      context.beginPath();
      corners.forEach((corner, k) => context[k ? "lineTo" : "moveTo"](...corner));
      context.closePath();
      context.stroke();
    }
    const [along, down, right] = volume.axes;
    const ends = [
      [right, wide / 2, 0, 0], [OPPOSITE[right], -wide / 2, 0, 0], [down, 0, -high / 2, 0], [OPPOSITE[down], 0, high / 2, 0],
      [along, 0, 0, (sign * deep) / 2], [OPPOSITE[along], 0, 0, (-sign * deep) / 2],
    ];
    for (const [letter, x, y, depth] of ends) {
      const [sx, sy] = onScreen(1.08 * x, 1.08 * y, 1.08 * depth);
      const behind = state.turn[6] * x + state.turn[7] * y + state.turn[8] * depth < 0;
      const inside = [Math.min(Math.max(sx, 8), width - 8), Math.min(Math.max(sy, 9), height - 9)];
      marks.write(context, letter, ...inside, { strength: behind ? 0.45 : 1 });
    }
  }

  // ---------------------------------------------------------------- the address

  const nameOf = ({ experiment, model, scheme }) => `${experiment}/${model}/${scheme}`;
  let addressed = null; // what the address stands for; null where that is what is drawn next
  let addressing = 0;

  // What is shown, for the address: volume, configuration, slice and, of three planes, where the others are cut.
  function addressOf() {
    const { volume } = state.loaded;
    const words = new URLSearchParams({
      volume: volume.name, configuration: nameOf(data.configurations[state.configuration]), slice: volume.slices[state.place],
    });
    if (state.planes) words.set("planes", [1, 2].map((axis) => (fromEdge(axis) / frameMm(axis)).toFixed(4)));
    return "#" + words;
  }

  // The address follows what is shown, once that has stood for a moment: browsers refuse many changes in a row.
  function noteAddress() {
    clearTimeout(addressing);
    const address = addressOf();
    addressed ??= address;
    if (address === addressed) return;
    addressing = setTimeout(() => {
      addressed = address;
      try {
        history.replaceState(history.state, "", address);
      } catch { /* not in a frame without an address of its own */ }
    }, 300);
  }

  // What the address names is shown: a volume (#volume=knee_7), in the configuration that it names or in the first that
  // has it. Null if it names none that is here.
  function chooseByAddress() {
    clearTimeout(addressing);
    const words = new URLSearchParams(location.hash.slice(1));
    const found = data.configurations.flatMap((configuration, index) => Object.entries(configuration.roles)
      .filter(([, view]) => data.volumes[configuration.views[view].volume].name === words.get("volume"))
      .map(([role]) => ({ index, role, named: nameOf(configuration) === words.get("configuration") })));
    const { index, role } = found.find(({ named }) => named) ?? found[0] ?? {};
    if (index === undefined) return null;
    addressed = null;
    mount.scrollIntoView();
    const slice = Number(words.get("slice") ?? NaN), across = (words.get("planes") ?? "").split(",").map(Number);
    return choose(index, role, {
      slice: Number.isInteger(slice) ? slice : undefined,
      across: across.length === 2 && across.every(Number.isFinite) ? across : undefined,
    });
  }

  // ---------------------------------------------------------------- start

  new ResizeObserver(draw).observe(root);
  window.addEventListener("beforeprint", draw);
  window.addEventListener("hashchange", chooseByAddress);
  chooseByAddress() ?? choose(0, "worst");
})();
