// What the page knows.

/**
 * Also `window.onnxplain`, to look at from the console. Arrays of numbers are [C,H,W].
 *
 * model        what its file says about the network; model.json, or another of the menu's
 * device       where it runs, once it can
 * photograph   {file, name, size, rgb, x, probabilities}: the crop's pixels, the network's input, a
 *              classifier's answer
 * target       what is explained of a photograph at first
 * inputs       what the objective was given besides, by name, replaced when something is given
 * boxes        the rectangles among that, by name, and a draft; in pixels of the network's input
 * slots        one or two classes on show, {target, explanation: {target, temperature, inputs,
 *              pullback}}; or what an objective explains, with {score, index, box} besides
 * active       the slot that the list, the overlay and the ascent are about
 * ascent       {target, start, x, pullback, scores}, pixels in [-1, 1], once it has begun
 */
export const state = {
  model: null,
  device: null,
  photograph: null,
  target: -1,
  inputs: {},
  boxes: {},
  draft: null,
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
  const { temperature, inputs } = state;
  return !(
    explanation?.target === target &&
    explanation.temperature === temperature &&
    explanation.inputs === inputs
  );
}

export const $ = (id) => document.getElementById(id);
