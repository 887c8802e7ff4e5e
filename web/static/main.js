// The page: what it holds, what a person does to it, and how both become pictures.

import { ascend, fromPixels, toPixels } from './ascent.js';
import { showChart } from './chart.js';
import { listed, search, showClasses } from './classes.js';
import { downloadFigures } from './download.js';
import { startEngine } from './engine.js';
import { isolate } from './isolation.js';
import { className, percent, ranking, softmax } from './ranking.js';
import { overlayImage, photographImage, pixelsImage, signedImage } from './render.js';

const STEP_PAUSE = 250; // milliseconds: fast enough to flow, slow enough to be seen
const $ = (id) => document.getElementById(id);

$('unserved').remove();
await isolate();

/**
 * All that the page knows; `window.onnxplain` in the console. Arrays of numbers are [C,H,W].
 *
 * model        model.json: what the file says about the network
 * device       where it runs, once it can
 * photograph   {name, rgb, x, probabilities}: the crop's pixels, the network's input, its answer
 * slots        one or two classes on show, {target, explanation: {target, temperature, pullback}}
 * active       the slot that the list, the overlay and the ascent are about
 * ascent       {target, start, x, pullback, probabilities}, pixels in [-1, 1], once it has begun
 */
const state = {
  model: null,
  device: null,
  photograph: null,
  slots: [],
  active: 0,
  temperature: null,
  ascent: null,
};
window.onnxplain = state;

const engine = startEngine(showProgress);
const described = describe();
let [opened, refreshing, steps, climbing] = [0, false, 0, false];
listen();
try {
  await described;
  state.device = await engine.load(state.model);
  refresh();
} catch (error) {
  fail(error);
}
$('loading').hidden = true;

async function describe() {
  const response = await fetch('model.json');
  if (!response.ok) throw new Error(`The server has no model.json (${response.status}).`);
  const model = await response.json();
  state.model = model;
  state.temperature = model.parameters.temperature ?? 1;
  const { width, height } = model.preprocessing;
  for (const canvas of [$('photograph'), $('accentuated'), $('difference')]) {
    Object.assign(canvas, { width, height });
  }
  $('network').textContent = model.source;
  document.title = `What does ${model.source} see?`;
  $('temperature-section').hidden = !('temperature' in model.parameters);
  $('temperature-live').hidden = !model.live_temperature;
  $('temperature-help').textContent = model.live_temperature
    ? 'Low is the ordinary gradient; higher, neurons that are almost active count too.'
    : `Fixed at ${state.temperature} in this file. With a file made by “onnxplain export … --live-temperature” there is a slider here.`;
  const slider = $('temperature');
  slider.min = Math.log10(0.1);
  slider.max = Math.log10(3);
  showTemperature();
  $('loading').hidden = false;
}

function showProgress(received, total) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  $('progress').value = received / total;
  $('megabytes').textContent =
    received < total ? `${megabytes(received)} of ${megabytes(total)} MB` : 'starting it …';
}

// What a person does.

function listen() {
  for (const input of document.querySelectorAll('.photograph-input')) {
    input.addEventListener('change', () => {
      if (input.files.length) openPhotograph(input.files[0]);
      input.value = ''; // so that the same file can be chosen again
    });
  }
  document.addEventListener('paste', (event) => openFirst(event.clipboardData));
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) document.body.classList.remove('dropping');
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('dropping');
    openFirst(event.dataTransfer);
  });

  $('overlay').addEventListener('change', drawPhotograph);
  $('classes').addEventListener('click', (event) => {
    const chosen = event.target.closest('[data-class]');
    if (chosen) pick(Number(chosen.dataset.class));
  });
  $('search').addEventListener('input', drawClasses);
  $('search').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !$('search').value.trim()) return;
    const [first] = search(state.model, state.photograph.probabilities, $('search').value);
    if (first !== undefined) pick(first);
  });
  $('compare').addEventListener('change', compare);
  $('choosing').addEventListener('click', (event) => {
    const chosen = event.target.closest('button');
    if (chosen) activate(Number(chosen.dataset.place));
  });
  $('temperature').addEventListener('input', () => setTemperature(10 ** $('temperature').value));
  $('temperature-reset').addEventListener('click', () =>
    setTemperature(state.model.parameters.temperature),
  );
  $('step').addEventListener('click', () => climb(1));
  $('play').addEventListener('click', () => climb(5));
  $('reset').addEventListener('click', () => {
    stopAscent();
    $('step').focus(); // this button is gone
  });
  $('download').addEventListener('click', download);
}

function openFirst({ files }) {
  if (files.length) openPhotograph(files[0]);
}

async function openPhotograph(file) {
  const turn = ++opened;
  try {
    await described;
    const { photograph, x } = await engine.open(file, state.model.preprocessing);
    if (turn !== opened) return; // another was chosen meanwhile
    $('error').hidden = true;
    say(state.device ? '' : 'It is explained as soon as the network is loaded.');
    state.photograph = { name: file.name, rgb: photograph, x, probabilities: null };
    state.slots = state.slots.length > 1 ? [slot(-1), slot(-2)] : [slot(-1)];
    state.active = 0;
    stopAscent();
    $('search').value = '';
    const focusLost = $('welcome').contains(document.activeElement);
    $('welcome').hidden = true;
    $('stage').hidden = false;
    if (focusLost) $('classes-title').focus({ preventScroll: true });
    refresh();
  } catch (error) {
    fail(error);
  }
}

/** A class to show: an index, or -1, -2 … for the likeliest, the runner-up … */
function slot(target) {
  return { target, explanation: null };
}

function pick(index) {
  state.slots[state.active].target = index;
  $('search').value = '';
  stopAscent();
  refresh();
  $('classes').querySelector(`[data-class="${index}"]`)?.focus();
}

function compare() {
  if ($('compare').checked) {
    const { probabilities } = state.photograph;
    const [first] = state.slots;
    state.slots = [first, slot(ranking(probabilities).find((index) => index !== first.target))];
  } else {
    state.slots = [state.slots[0]];
  }
  activate(state.slots.length - 1);
}

function activate(place) {
  state.active = place;
  stopAscent();
  refresh();
}

function setTemperature(temperature) {
  state.temperature = temperature;
  showTemperature();
  stopAscent();
  refresh();
}

function showTemperature() {
  const { temperature } = state;
  const exported = state.model.parameters.temperature;
  const text = temperature.toPrecision(2);
  $('temperature').value = Math.log10(temperature);
  $('temperature').setAttribute('aria-valuetext', text);
  $('temperature-value').textContent = `T = ${text}`;
  $('temperature-reset').textContent = `as exported, ${exported}`;
}

// Explaining. A person moves faster than the network: what is out of date is explained until
// nothing is, so the newest wish wins and none queues up.

async function refresh() {
  draw();
  if (refreshing || !state.device || !state.photograph) return;
  refreshing = true;
  try {
    while (state.slots.some(isStale)) {
      for (const stale of state.slots.filter(isStale)) {
        await explain(stale);
        draw();
      }
    }
    const { target } = state.slots[0];
    say(`${className(state.model, target)}, ${percent(state.photograph.probabilities[target])}.`);
  } catch (error) {
    fail(error);
  } finally {
    refreshing = false;
  }
}

function isStale({ target, explanation }) {
  return explanation?.target !== target || explanation.temperature !== state.temperature;
}

async function explain(slot) {
  const { photograph, temperature } = state;
  const { target } = slot;
  const { logits, pullback, seconds } = await engine.explain(photograph.x, target, temperature);
  photograph.probabilities = softmax(logits);
  const index = target < 0 ? ranking(photograph.probabilities)[-1 - target] : target;
  if (slot.target === target) slot.target = index;
  slot.explanation = { target: index, temperature, pullback };
  showAbout(seconds);
}

// The ascent.

async function climb(more) {
  steps += more; // a step asked for while others are under way follows them
  if (climbing || !state.photograph.probabilities) return;
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

async function takeStep() {
  const { model, photograph, temperature } = state;
  const { target } = state.slots[state.active];
  const explainAt = async (pixels) => {
    const x = fromPixels(pixels, model.preprocessing);
    const { logits, pullback } = await engine.explain(x, target, temperature);
    return { x: pixels, pullback, probability: softmax(logits)[target] };
  };
  if (!state.ascent) {
    const start = toPixels(photograph.x, model.preprocessing);
    const ascent = { target, start, probabilities: [] };
    state.ascent = ascent;
    arrive(ascent, await explainAt(start));
  }
  const { ascent } = state;
  if (!ascent) return; // stopped meanwhile, and `steps` with it
  const x = ascend(ascent.start, ascent.x, ascent.pullback, model.preprocessing);
  const [reached] = await Promise.all([explainAt(x), pause()]);
  if (ascent !== state.ascent) return;
  arrive(ascent, reached);
  steps -= 1;
  drawAscent();
  if (ascent.probabilities.length === 2) $('climb').scrollIntoView({ block: 'nearest' });
  say(`After ${count(ascent)}: ${className(model, target)}, ${percent(reached.probability)}.`);
}

function arrive(ascent, { x, pullback, probability }) {
  Object.assign(ascent, { x, pullback });
  ascent.probabilities.push(probability);
}

function pause() {
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  return new Promise((resolve) => setTimeout(resolve, still ? 0 : STEP_PAUSE));
}

function stopAscent() {
  state.ascent = null;
  steps = 0;
  drawAscent();
}

function count({ probabilities }) {
  const taken = probabilities.length - 1;
  return taken === 1 ? '1 step' : `${taken} steps`;
}

// Drawing: from the state to the page.

function draw() {
  if (!state.photograph) return;
  drawPhotograph();
  drawExplanations();
  drawClasses();
  drawAscent();
}

function drawPhotograph() {
  const { rgb } = state.photograph;
  const { explanation } = state.slots[state.active];
  const overlaid = $('overlay').checked && explanation;
  paint($('photograph'), overlaid ? overlay(rgb, explanation.pullback) : photographImage(rgb));
}

function overlay(rgb, pullback) {
  const { mean, width } = state.model.preprocessing;
  return overlayImage(rgb, pullback, mean.length, width);
}

function drawExplanations() {
  const { model, photograph, slots } = state;
  const { width, height, mean } = model.preprocessing;
  const shown = () => $('pictures').querySelectorAll('.explanation');
  while (shown().length > slots.length) [...shown()].at(-1).remove();
  while (shown().length < slots.length) {
    const figure = $('explanation').content.cloneNode(true);
    Object.assign(figure.querySelector('canvas'), { width, height });
    $('pictures').append(figure);
  }
  shown().forEach((figure, place) => {
    const { target, explanation } = slots[place];
    figure.ariaBusy = isStale(slots[place]);
    if (!explanation) return;
    const name = className(model, target);
    const canvas = figure.querySelector('canvas');
    figure.querySelector('.name').textContent = name;
    figure.querySelector('.percent').textContent = percent(photograph.probabilities[target]);
    canvas.ariaLabel = `What would make it more ${name}`;
    paint(canvas, signedImage(explanation.pullback, mean.length));
  });
}

function drawClasses() {
  const { model, photograph, slots, active } = state;
  const { probabilities } = photograph;
  if (!probabilities) return;
  const chosen = slots.map(({ target }) => target).filter((target) => target >= 0);
  const query = $('search').value;
  const indices = listed(model, probabilities, query, chosen);
  showClasses($('classes'), model, probabilities, indices, chosen);
  $('matches').textContent = query.trim() ? matches(query) : '';

  $('choosing').hidden = slots.length < 2;
  $('choosing').replaceChildren(
    ...slots.map(({ target }, place) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.dataset.place = place;
      button.ariaPressed = place === active;
      button.textContent = target < 0 ? '…' : className(model, target);
      return button;
    }),
  );
}

function matches(query) {
  const { length } = search(state.model, state.photograph.probabilities, query);
  if (!length) return `No class is called “${query.trim()}”.`;
  return length === 1 ? '1 class' : `${length} classes, the likeliest first`;
}

function drawAscent() {
  const { model, slots, active, ascent } = state;
  const { target } = slots[active];
  const begun = ascent?.probabilities.length > 1;
  $('climb').hidden = $('reset').hidden = !begun;
  $('ascent').classList.toggle('second', active === 1);
  for (const name of $('ascent').querySelectorAll('.ascent-class')) {
    name.textContent = target < 0 ? '…' : className(model, target);
  }
  if (!begun) return;
  const channels = model.preprocessing.mean.length;
  const added = ascent.x.map((value, i) => value - ascent.start[i]);
  paint($('accentuated'), pixelsImage(ascent.x, channels));
  paint($('difference'), signedImage(added, channels));
  $('steps-done').textContent = `After ${count(ascent)}`;
  showChart($('chart'), className(model, ascent.target), ascent.probabilities);
}

function paint(canvas, rgba) {
  canvas.getContext('2d').putImageData(new ImageData(rgba, canvas.width), 0, 0);
}

function download() {
  const { model, photograph, slots, temperature } = state;
  const drawn = [...$('stage').querySelectorAll('figure:has(canvas)')];
  const figures = drawn.filter((figure) => figure.offsetParent); // null where it is hidden
  const names = slots.map(({ target }) => className(model, target));
  const footnote = [`${model.source}, ${model.method} pullback`];
  if ('temperature' in model.parameters) footnote.push(`T = ${temperature.toPrecision(2)}`);
  const stem = [photograph.name.replace(/\.\w+$/, ''), ...names].join('-').replace(/\s+/g, '-');
  downloadFigures(figures, footnote.join(', '), `${stem}.png`);
}

function showAbout(seconds) {
  const { device, model } = state;
  const { method, classes, bytes } = model;
  const megabytes = (bytes['model.onnx'] / 1e6).toFixed(1);
  $('about').textContent =
    `${method} pullback of ${classes} classes, ${megabytes} MB, in ${seconds.toFixed(2)} s by ${device}`;
}

function say(text) {
  $('status').textContent = text;
}

function fail(error) {
  console.error(error);
  $('error').textContent = error.message;
  $('error').hidden = false;
}
