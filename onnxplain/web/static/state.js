// What the page knows.

/**
 * Also `window.onnxplain`, to look at from the console. Arrays of numbers are [C,H,W].
 *
 * model        what its file says about the network; model.json, or another of the menu's
 * device       where it runs, once it can
 * photograph   {file, name, rgb, x, probabilities}: the crop's pixels, the network's input, its
 *              answer
 * slots        one or two classes on show, {target, explanation: {target, temperature, pullback}}
 * active       the slot that the list, the overlay and the ascent are about
 * ascent       {target, start, x, pullback, probabilities}, pixels in [-1, 1], once it has begun
 */
export const state = {
  model: null,
  device: null,
  photograph: null,
  slots: [],
  active: 0,
  temperature: null,
  ascent: null,
};
window.onnxplain = state;

/** A class to show: an index, or -1, -2 … for the likeliest, the runner-up … */
export function slot(target) {
  return { target, explanation: null };
}

/** Whether what a slot shows is not, or no longer, what it should. */
export function isStale({ target, explanation }) {
  return explanation?.target !== target || explanation.temperature !== state.temperature;
}

export const $ = (id) => document.getElementById(id);
