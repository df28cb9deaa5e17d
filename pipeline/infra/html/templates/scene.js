// The 3D view: drag to turn, wheel or pinch to zoom (once the view has the focus), keys likewise. Draws on a canvas;
// the values come from scene.py: metres, camera at the origin, x right, y down, z forward. Where an entry of the list
// has several frames, a video, it can be played.
(() => {
  const scene = JSON.parse(document.getElementById("scene-data").textContent);
  const canvas = document.getElementById("scene");
  const context = canvas.getContext("2d");
  const choice = document.getElementById("scene-frame");
  const list = document.getElementById("scene-people");
  const photo = document.getElementById("scene-photo");
  const slider = document.getElementById("scene-slider");
  const shown = (name) => document.getElementById(`show-${name}`)?.checked ?? false;
  const clips = scene.clips ?? scene.frames.map((_, i) => [i, i + 1]);
  for (const frame of scene.frames) frame.truth ??= [];
  const start = { yaw: 0.45, pitch: 0.3, zoom: 1 };
  const view = { ...start };
  let clip, at, frame, target, reach, floor;

  const place = (point, shift = [0, 0, 0]) => {
    const [x, y, z] = point.map((value, i) => value + shift[i] - target[i]);
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    const [x1, z1] = [cy * x - sy * z, sy * x + cy * z];
    return [x1, cp * y - sp * z1, sp * y + cp * z1 + (reach * 3.1) / view.zoom];
  };
  const NEAR = 0.05;
  const onScreen = ([x, y, depth]) => {
    const focal = 1.15 * Math.min(canvas.clientWidth, canvas.clientHeight * 1.3);
    return [canvas.clientWidth / 2 + (focal * x) / depth, canvas.clientHeight / 2 + (focal * y) / depth, focal / depth];
  };
  // The part of a segment in view coordinates that is in front of the viewpoint; null if no part is.
  const cut = (a, b) => {
    if (a[2] < NEAR && b[2] < NEAR) return null;
    if (a[2] >= NEAR && b[2] >= NEAR) return [a, b];
    const share = (NEAR - a[2]) / (b[2] - a[2]);
    const middle = a.map((value, i) => value + share * (b[i] - value));
    return a[2] < NEAR ? [middle, b] : [a, middle];
  };

  // A bone's side is that of its outer end; colors are for the middle, the left and the right.
  function strokes(points, shift, colors, metres, list) {
    for (const [a, b] of scene.bones) {
      if (!points[a] || !points[b]) continue;
      const ends = cut(place(points[a], shift), place(points[b], shift));
      const color = colors["lr".indexOf(scene.sides[b] || "-") + 1];
      if (ends) list.push({ ends, color, metres, depth: (ends[0][2] + ends[1][2]) / 2 });
    }
  }

  function line(ends, color, width) {
    const [[u0, v0], [u1, v1]] = ends.map(onScreen);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(u0, v0);
    context.lineTo(u1, v1);
    context.stroke();
  }

  const rootOf = (joints) => {
    const found = scene.root.map((i) => joints[i]);
    return found.every(Boolean) ? [0, 1, 2].map((k) => found.reduce((sum, p) => sum + p[k], 0) / found.length) : null;
  };
  const hasTruth = (person) => Number.isInteger(person.truth);
  // Shift that puts a predicted root on the annotated one, as the root-aligned error does.
  const aligned = (person) => {
    const truth = hasTruth(person) ? rootOf(frame.truth[person.truth]) : null;
    const root = rootOf(person.joints);
    return shown("aligned") && truth && root ? truth.map((value, i) => value - root[i]) : [0, 0, 0];
  };

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.lineCap = "round";
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const [gridX, gridZ] = [0, 2].map((k) => [Math.floor(target[k] - reach) - 1, Math.ceil(target[k] + reach) + 1]);
    const step = Math.max(1, Math.ceil(reach / 8));
    const floorLine = (a, b) => {
      const ends = cut(place([a[0], floor, a[1]]), place([b[0], floor, b[1]]));
      if (ends) line(ends, color("grid"), 1);
    };
    for (let x = gridX[0]; x <= gridX[1]; x += step) floorLine([x, gridZ[0]], [x, gridZ[1]]);
    for (let z = gridZ[0]; z <= gridZ[1]; z += step) floorLine([gridX[0], z], [gridX[1], z]);
    for (const [i, corner] of (frame.view ?? []).entries()) {
      for (const other of [[0, 0, 0], frame.view[(i + 1) % 4]]) {
        const ends = cut(place(corner), place(other));
        if (ends) line(ends, color("muted"), 1);
      }
    }
    const parts = [];
    const grey = Array(3).fill(color("truth"));
    if (shown("truth")) frame.truth.forEach((joints) => strokes(joints, undefined, grey, 0.028, parts));
    if (shown("found")) frame.people.forEach((p, i) => strokes(p.joints, aligned(p), scene.colors[i], 0.038, parts));
    if (shown("gaps") && shown("found")) {
      for (const person of frame.people.filter(hasTruth)) {
        person.joints.forEach((joint, i) => {
          const wanted = frame.truth[person.truth][i];
          const ends = joint && wanted && cut(place(joint, aligned(person)), place(wanted));
          if (ends) parts.push({ ends, color: color("bad"), metres: 0.012, depth: (ends[0][2] + ends[1][2]) / 2 });
        });
      }
    }
    parts.sort((a, b) => b.depth - a.depth);
    for (const { ends, color, metres, depth } of parts) {
      line(ends, color, Math.min(11, Math.max(1, metres * onScreen([0, 0, depth])[2])));
    }
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    if (shown("found")) {
      frame.people.forEach((person, i) => {
        const points = person.joints.filter(Boolean).map((joint) => place(joint, aligned(person)));
        const seen = points.filter((point) => point[2] >= NEAR).map(onScreen);
        if (!seen.length) return;
        const [u, v] = seen.reduce((high, point) => (point[1] < high[1] ? point : high));
        context.lineWidth = 3;
        context.strokeStyle = color("paper");
        context.strokeText(i + 1, u, v - 10);
        context.fillStyle = color("ink");
        context.fillText(i + 1, u, v - 10);
      });
    }
  }

  // The middle of the bodies and how far they reach, over a whole clip, so that the view stays while it plays. It fits
  // the annotated people where there are any, and of many points all but a hundredth at each end, since a wrong
  // prediction may be at any distance.
  function fit() {
    const bodies = scene.frames.slice(...clips[clip]).flatMap((frame) =>
      frame.truth.length ? frame.truth : frame.people.map((person) => person.joints));
    const points = bodies.flat().filter(Boolean);
    if (!points.length) points.push([0, 0, 3]);
    const left = Math.floor(points.length / 100);
    const range = [0, 1, 2].map((k) => {
      const sorted = points.map((point) => point[k]).sort((a, b) => a - b);
      return [sorted[left], sorted[points.length - 1 - left]];
    });
    target = range.map(([low, high]) => (low + high) / 2);
    reach = Math.min(30, Math.max(1.2, Math.hypot(...range.map(([low, high]) => high - low)) / 2));
    floor = range[1][1];
  }

  function choose(index) {
    stop();
    clip = index;
    choice.value = index;
    const [first, end] = clips[clip];
    if (slider) {
      slider.max = end - first - 1;
      document.getElementById("scene-player").hidden = end - first < 2;
    }
    fit();
    show(0);
  }

  function show(number) {
    at = number;
    const index = clips[clip][0] + at;
    frame = scene.frames[index];
    if (slider) {
      slider.value = at;
      document.getElementById("scene-time").textContent = `${((frame.time ?? 0) / 1000).toFixed(2)} s`;
    }
    const picture = scene.images ? scene.images[frame.image] : document.querySelector(`img[data-picture="${index}"]`)?.src;
    photo.src = picture ?? "";
    list.replaceChildren();
    const row = (color, ...texts) => {
      const item = list.insertRow();
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.style.background = color;
      item.insertCell().append(chip);
      texts.forEach((text) => (item.insertCell().textContent = text));
    };
    frame.people.forEach((person, i) =>
      row(scene.colors[i][0], i + 1, person.score.toFixed(2),
        person.note ?? (person.error === null ? "unmatched" : `${person.error} mm`)));
    const missed = frame.truth.length - frame.people.filter(hasTruth).length;
    if (missed > 0) row("var(--truth)", "", "", `${missed} missed`);
    draw();
  }

  let playing = null; // the request of the next step, while it plays
  const played = (name) => (document.getElementById("scene-play").textContent = name);
  function stop() {
    if (playing === null) return;
    cancelAnimationFrame(playing);
    playing = null;
    played("Play");
  }
  function play() {
    const [first, end] = clips[clip];
    if (at === end - first - 1) show(0);
    const time = (number) => scene.frames[first + number].time;
    const begin = performance.now() - time(at);
    const step = (now) => {
      let next = at;
      while (next < end - first - 1 && time(next + 1) <= now - begin) next += 1;
      if (next !== at) show(next);
      if (next === end - first - 1) stop();
      else playing = requestAnimationFrame(step);
    };
    played("Pause");
    playing = requestAnimationFrame(step);
  }
  if (slider) {
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    document.getElementById("scene-play").addEventListener("click", () => (playing === null ? play() : stop()));
  }

  const turn = (yaw, pitch) => {
    view.yaw += yaw;
    view.pitch = Math.min(1.55, Math.max(-0.4, view.pitch + pitch));
    draw();
  };
  const zoom = (factor) => {
    view.zoom = Math.min(12, Math.max(0.15, view.zoom * factor));
    draw();
  };
  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const apart = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (apart !== null) zoom(spread() / Math.max(1, apart));
    else turn((before[0] - event.clientX) * 0.008, (event.clientY - before[1]) * 0.008);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // the page scrolls on until the view was clicked
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015));
  }, { passive: false });
  const keys = { ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, 0.1),
    ArrowDown: () => turn(0, -0.1), "+": () => zoom(1.2), "-": () => zoom(1 / 1.2) };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  const step = (by) => choose((clip + by + clips.length) % clips.length);
  const clicks = { "scene-next": () => step(1), "scene-previous": () => step(-1), "scene-in": () => zoom(1.3),
    "scene-out": () => zoom(1 / 1.3), "scene-reset": () => { Object.assign(view, start); draw(); } };
  for (const [id, action] of Object.entries(clicks)) document.getElementById(id).addEventListener("click", action);
  choice.addEventListener("change", () => choose(Number(choice.value)));
  for (const name of ["truth", "found", "aligned", "gaps"]) {
    document.getElementById(`show-${name}`)?.addEventListener("change", draw);
  }
  for (const button of document.querySelectorAll("button[data-frame]")) {
    button.addEventListener("click", () => {
      choose(Number(button.dataset.frame));
      document.getElementById("people").scrollIntoView();
    });
  }
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  choose(0);
})();
