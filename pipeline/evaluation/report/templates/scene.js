// The 3D view: drag to turn, wheel or pinch to zoom (once the view has the focus), keys likewise. Draws on a canvas;
// the values come from scene.py: metres, camera at the origin, x right, y down, z forward.
(() => {
  const scene = JSON.parse(document.getElementById("scene-data").textContent);
  const canvas = document.getElementById("scene");
  const context = canvas.getContext("2d");
  const choice = document.getElementById("scene-frame");
  const list = document.getElementById("scene-people");
  const photo = document.getElementById("scene-photo");
  const shown = (name) => document.getElementById(`show-${name}`).checked;
  const start = { yaw: 0.45, pitch: 0.3, zoom: 1 };
  const view = { ...start };
  let frame, target, reach, floor;

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

  function strokes(points, shift, color, metres, list) {
    for (const [a, b] of scene.bones) {
      if (!points[a] || !points[b]) continue;
      const ends = cut(place(points[a], shift), place(points[b], shift));
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
  // Shift that puts a predicted root on the annotated one, as the root-aligned error does.
  const aligned = (person) => {
    const truth = person.truth === null ? null : rootOf(frame.truth[person.truth]);
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
    if (shown("truth")) frame.truth.forEach((joints) => strokes(joints, undefined, color("truth"), 0.028, parts));
    if (shown("found")) frame.people.forEach((p) => strokes(p.joints, aligned(p), p.color, 0.038, parts));
    if (shown("gaps") && shown("found")) {
      for (const person of frame.people.filter((p) => p.truth !== null)) {
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

  function show(index) {
    frame = scene.frames[index];
    choice.value = index;
    // The view fits the annotated people, since a wrong prediction may be at any distance.
    const bodies = frame.truth.length ? frame.truth : frame.people.map((person) => person.joints);
    const points = bodies.flat().filter(Boolean);
    if (!points.length) points.push([0, 0, 3]);
    const range = [0, 1, 2].map((k) => [Math.min(...points.map((p) => p[k])), Math.max(...points.map((p) => p[k]))]);
    target = range.map(([low, high]) => (low + high) / 2);
    reach = Math.min(30, Math.max(1.2, Math.hypot(...range.map(([low, high]) => high - low)) / 2));
    floor = range[1][1];
    photo.src = document.querySelector(`img[data-picture="${index}"]`)?.src ?? "";
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
      row(person.color, i + 1, person.score.toFixed(2), person.error === null ? "unmatched" : `${person.error} mm`));
    const missed = frame.truth.length - frame.people.filter((person) => person.truth !== null).length;
    if (missed > 0) row("var(--truth)", "", "", `${missed} missed`);
    draw();
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
  const step = (by) => show((Number(choice.value) + by + scene.frames.length) % scene.frames.length);
  const clicks = { "scene-next": () => step(1), "scene-previous": () => step(-1), "scene-in": () => zoom(1.3),
    "scene-out": () => zoom(1 / 1.3), "scene-reset": () => { Object.assign(view, start); draw(); } };
  for (const [id, action] of Object.entries(clicks)) document.getElementById(id).addEventListener("click", action);
  choice.addEventListener("change", () => show(Number(choice.value)));
  for (const name of ["truth", "found", "aligned", "gaps"]) {
    document.getElementById(`show-${name}`).addEventListener("change", draw);
  }
  for (const button of document.querySelectorAll("button[data-frame]")) {
    button.addEventListener("click", () => {
      show(Number(button.dataset.frame));
      document.getElementById("people").scrollIntoView();
    });
  }
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  show(0);
})();
