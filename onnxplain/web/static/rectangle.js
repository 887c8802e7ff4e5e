// A rectangle drawn on the photograph; a click takes it away.

import { isBox, toPhotograph } from './boxes.js';
import { rectangleField } from './fields.js';
import { $, state } from './state.js';
import { drawPhotograph } from './view.js';

const LEAST = 2; // pixels of the network's input

export function listenToPointer() {
  const canvas = $('photograph');
  let start = null;

  canvas.addEventListener('pointerdown', (event) => {
    if (!rectangleField()) return;
    start = at(canvas, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!start) return;
    state.draft = between(start, at(canvas, event));
    drawPhotograph();
  });
  canvas.addEventListener('pointerup', (event) => {
    if (!start) return;
    fill(between(start, at(canvas, event)));
    start = state.draft = null;
  });
  canvas.addEventListener('pointercancel', () => {
    start = state.draft = null;
    drawPhotograph();
  });
}

/** Into its field, from which it is read as what is typed there. */
function fill([left, top, right, bottom]) {
  const { size } = state.photograph;
  const field = rectangleField();
  const drawn = isBox([left, top, right - LEAST, bottom - LEAST]);
  const box = toPhotograph([left, top, right, bottom], size, state.model.preprocessing);
  const [width, height] = [size.width, size.height];
  const sides = box.map((side, i) => Math.min(Math.max(side, 0), i % 2 ? height : width));
  field.value = drawn ? sides.map((side) => Number(side.toFixed(1))).join(', ') : '';
  field.dispatchEvent(new Event('change', { bubbles: true }));
}

/** Where a pointer is, in pixels of the network's input. */
function at(canvas, { offsetX, offsetY }) {
  const { width, height, clientWidth, clientHeight } = canvas;
  const clip = (value, high) => Math.min(Math.max(value, 0), high);
  return [
    clip((offsetX * width) / clientWidth, width),
    clip((offsetY * height) / clientHeight, height),
  ];
}

function between([x, y], [otherX, otherY]) {
  return [Math.min(x, otherX), Math.min(y, otherY), Math.max(x, otherX), Math.max(y, otherY)];
}
