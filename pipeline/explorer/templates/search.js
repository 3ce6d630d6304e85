// A box is dragged over the chosen photograph; the bytes of the file and the box are sent, and the answer is shown.
"use strict";
const [form, file, stage, photograph, box, state, results] =
  ["search", "file", "stage", "photograph", "box", "state", "results"].map((id) => document.getElementById(id));
let start = null;
let asked = 0;

file.addEventListener("change", () => {
  URL.revokeObjectURL(photograph.src);
  results.textContent = state.textContent = "";
  box.hidden = true;
  stage.hidden = !file.files.length;
  if (file.files.length) photograph.src = URL.createObjectURL(file.files[0]);
});

function place(event) {
  const frame = photograph.getBoundingClientRect();
  const inside = (value, size) => Math.min(Math.max(value, 0), size);
  return [inside(event.clientX - frame.left, frame.width), inside(event.clientY - frame.top, frame.height)];
}

function corners(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

function draw([x1, y1, x2, y2]) {
  Object.assign(box.style, { left: `${x1}px`, top: `${y1}px`, width: `${x2 - x1}px`, height: `${y2 - y1}px` });
  box.hidden = false;
}

stage.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  stage.setPointerCapture(event.pointerId);
  start = place(event);
});

stage.addEventListener("pointermove", (event) => {
  if (start) draw(corners(start, place(event)));
});

stage.addEventListener("pointerup", (event) => {
  if (!start) return;
  const dragged = corners(start, place(event));
  start = null;
  draw(dragged);
  const scale = photograph.naturalWidth / photograph.getBoundingClientRect().width;
  search(dragged.map((value) => (value * scale).toFixed(1)).join(","));
});

async function search(text) {
  const mine = ++asked;
  state.textContent = "Searching …";
  const query = new URLSearchParams({ store: form.dataset.store, box: text, measure: document.getElementById("measure").value });
  try {
    const answer = await fetch(`search?${query}`, { method: "POST", body: file.files[0] });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== asked) return;
    state.textContent = answer.ok ? "" : page.querySelector("p").textContent;
    results.replaceChildren(...(answer.ok ? page.body.childNodes : []));
  } catch (error) {
    state.textContent = `The search failed: ${error.message}`;
  }
}
