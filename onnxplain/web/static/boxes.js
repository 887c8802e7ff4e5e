// Boxes, [left, top, right, bottom]: of a photograph and of the network's input, as
// onnxplain.runtime.inputs.batches places them; as a region of a map; and drawn.

import { placement } from './preprocess.js';

/** A box of the network's input in pixels of the photograph, which is {width, height}. */
export function toPhotograph(box, size, pre) {
  const { width, height, left, top } = placement(size, pre);
  return box.map((side, i) =>
    i % 2 ? ((side + top) * size.height) / height : ((side + left) * size.width) / width,
  );
}

/** The reverse, cut to what the network sees. */
export function toInput(box, size, pre) {
  const said = `The box ${box.join(', ')}`;
  if (!(isWithin(box[0], box[2], size.width) && isWithin(box[1], box[3], size.height))) {
    throw new Error(
      `${said} is not left, top, right, bottom within the photograph of ${size.width} × ${size.height} pixels.`,
    );
  }
  const { width, height, left, top } = placement(size, pre);
  const placed = box.map((side, i) =>
    i % 2
      ? clip((side * height) / size.height - top, pre.height)
      : clip((side * width) / size.width - left, pre.width),
  );
  if (!isBox(placed)) {
    throw new Error(`${said} lies where the photograph is cropped: the network does not see it.`);
  }
  return placed;
}

/** Places of a map, 1 where their middle is in a box of the network's input; one place at least. */
export function toRegion([left, top, right, bottom], [height, width], pre) {
  const [x, endX] = places(left, right, pre.width / width, width);
  const [y, endY] = places(top, bottom, pre.height / height, height);
  return Float32Array.from({ length: height * width }, (_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return Number(row >= y && row < endY && column >= x && column < endX);
  });
}

function places(from, to, size, count) {
  const [first, end] = [from, to].map((side) => Math.ceil(side / size - 0.5));
  if (first < end) return [first, end];
  const middle = Math.min(Math.floor((from + to) / 2 / size), count - 1);
  return [middle, middle + 1];
}

/** Whether it has an area; where nothing was found, it is 0 everywhere. */
export function isBox([left, top, right, bottom]) {
  return left < right && top < bottom;
}

/** White on black, on a canvas. */
export function outline(canvas, [left, top, right, bottom]) {
  const context = canvas.getContext('2d');
  const width = Math.max(1, canvas.width / 200);
  for (const [colour, lineWidth] of Object.entries({ black: 3 * width, white: width })) {
    Object.assign(context, { strokeStyle: colour, lineWidth });
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

function isWithin(from, to, size) {
  return 0 <= from && from < to && to <= size;
}

function clip(value, high) {
  return Math.min(high, Math.max(0, value));
}
