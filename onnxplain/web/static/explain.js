// What a person asks for, and how the pictures follow.

import { stopAscent } from './climb.js';
import { engine } from './engine.js';
import { clearRectangles, missing, take } from './fields.js';
import { likelihoods, ranking, told } from './ranking.js';
import { $, isStale, slot, state } from './state.js';
import { draw, fail, say, showAbout, showTemperature } from './view.js';

let [opened, refreshing] = [0, false];

/** Explain an image file; the newest wins. */
export async function openPhotograph(file) {
  const turn = ++opened;
  try {
    const { model } = state;
    const { photograph, x, size } = await engine.open(file, model.preprocessing, model.pixels);
    if (turn !== opened || model !== state.model) return;
    $('error').hidden = true;
    say(state.device ? '' : 'It is explained as soon as the network is loaded.');
    state.photograph = { file, name: file.name, size, rgb: photograph, x, probabilities: null };
    state.slots = state.slots.length > 1 ? [slot(-1), slot(-2)] : [slot(state.target)];
    state.active = 0;
    clearRectangles();
    stopAscent();
    $('search').value = '';
    const focusLost = $('welcome').contains(document.activeElement);
    $('welcome').hidden = true;
    $('stage').hidden = $('stage').inert = false;
    if (focusLost) $(model.objective ? 'objective-title' : 'classes-title').focus({ preventScroll: true });
    refresh();
  } catch (error) {
    fail(error);
  }
}

/** Show a class in the active slot. */
export function pick(index) {
  state.slots[state.active].target = index;
  $('search').value = '';
  stopAscent();
  refresh();
  $('classes').querySelector(`[data-class="${index}"]`)?.focus();
}

/** Explain by what a field of the objective says. */
export async function give(control) {
  try {
    if (!(await take(control))) return;
    $('error').hidden = true;
    for (const slot of state.slots) slot.target = state.target;
    stopAscent();
    refresh();
  } catch (error) {
    fail(error);
  }
}

/** Show a second class beside the first, or no longer. */
export function compare(wanted) {
  const [first] = state.slots;
  const { probabilities } = state.photograph;
  const predicted = first.target < 0 || first.target === ranking(probabilities)[0];
  state.slots = wanted ? [first, slot(predicted ? -2 : -1)] : [first];
  activate(state.slots.length - 1);
}

export function activate(place) {
  state.active = place;
  stopAscent();
  refresh();
}

export function setTemperature(temperature) {
  state.temperature = temperature;
  showTemperature();
  stopAscent();
  refresh();
}

/**
 * Explain what is out of date until nothing is: a person moves faster than the network, and so the
 * newest wish wins and none queues up.
 */
export async function refresh() {
  draw();
  if (refreshing || !state.device || !state.photograph) return;
  const [needed] = missing();
  if (needed) {
    say(`It is explained as soon as “${needed}” is given.`);
    return;
  }
  refreshing = true;
  try {
    while (state.slots.some(isStale)) {
      for (const stale of state.slots.filter(isStale)) {
        await explain(stale);
        draw();
      }
    }
    if (!state.photograph) return; // another network is loaded meanwhile
    const { name, score } = told(state, state.slots[state.active]);
    say(`${name}, ${score}.`);
  } catch (error) {
    fail(error);
  } finally {
    refreshing = false;
  }
}

async function explain(slot) {
  const { model, photograph, temperature, inputs } = state;
  const { target } = slot;
  const { logits, seconds, ...answer } = await engine.explain(
    photograph.x,
    target,
    temperature,
    inputs,
  );
  if (photograph !== state.photograph) return;
  slot.explanation = { target, temperature, inputs, ...answer };
  if (logits) {
    photograph.probabilities = likelihoods(model, logits);
    const index = target < 0 ? ranking(photograph.probabilities)[-1 - target] : target;
    if (slot.target === target) slot.target = index;
    slot.explanation.target = index;
  }
  showAbout(seconds);
}
