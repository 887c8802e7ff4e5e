// The ascent, step by step: it belongs to one photograph, class and temperature.

import { ascend, fromPixels, toPixels } from './ascent.js';
import { engine } from './engine.js';
import { scoreOf, scoreText, told } from './ranking.js';
import { $, state } from './state.js';
import { count, drawAscent, fail, say } from './view.js';

const PAUSE = 250; // milliseconds a step takes at least: fast enough to flow, slow enough to be seen
const still = matchMedia('(prefers-reduced-motion: reduce)');

let [steps, climbing] = [0, false];

/** Take more steps; those asked for while others are under way follow them. */
export async function climb(more) {
  if (!state.slots[state.active]?.explanation) return; // not explained yet
  steps += more;
  if (climbing) return;
  climbing = true;
  try {
    while (steps > 0) await takeStep();
  } catch (error) {
    stopAscent();
    fail(error);
  } finally {
    climbing = false;
  }
}

/** Back to the photograph. */
export function stopAscent() {
  state.ascent = null;
  steps = 0;
  if (state.photograph) drawAscent();
}

async function takeStep() {
  const { preprocessing, ascent: by } = state.model;
  state.ascent ??= begin();
  const { ascent } = state;
  if (!ascent.pullback) await arrive(ascent, ascent.start);
  if (ascent !== state.ascent) return; // stopped meanwhile
  const x = ascend(ascent.start, ascent.x, ascent.pullback, preprocessing, by);
  await Promise.all([arrive(ascent, x), pause()]);
  if (ascent !== state.ascent) return; // stopped meanwhile
  steps -= 1;
  drawAscent();
  if (ascent.scores.length === 2) scrollTo($('climb'));
  const { name } = told(state, state.slots[state.active]);
  say(`After ${count(ascent)}: ${name}, ${scoreText(state.model, ascent.scores.at(-1))}.`);
}

function begin() {
  const { target } = state.slots[state.active];
  const start = toPixels(state.photograph.x, state.model.preprocessing);
  return { target, start, x: start, pullback: null, scores: [] };
}

/** Ask the network about `x`, which becomes where the ascent is. */
async function arrive(ascent, x) {
  const input = fromPixels(x, state.model.preprocessing);
  const { model, temperature, inputs } = state;
  const answer = await engine.explain(input, ascent.target, temperature, inputs);
  if (answer.index >= 0) ascent.target = answer.index; // also where another would be the best later
  Object.assign(ascent, { x, pullback: answer.pullback });
  ascent.scores.push(scoreOf(model, answer, ascent.target));
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, still.matches ? 0 : PAUSE));
}

function scrollTo(element) {
  element.scrollIntoView({ block: 'nearest', behavior: still.matches ? 'auto' : 'smooth' });
}
