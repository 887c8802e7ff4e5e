// Drawing: from the state to the page.

import { isBox, outline, toPhotograph } from './boxes.js';
import { showChart } from './chart.js';
import { listed, search, showClasses } from './classes.js';
import { className, scoreText, told } from './ranking.js';
import { overlayImage, photographImage, pixelsImage, signedImage } from './render.js';
import { $, isStale, state } from './state.js';

/** What stays as it is, once the network's description is known. */
export function showModel() {
  const { model } = state;
  for (const figure of $('pictures').querySelectorAll('.explanation')) figure.remove();
  for (const part of document.querySelectorAll('[data-of]')) {
    part.hidden = (part.dataset.of === 'objective') !== Boolean(model.objective);
  }
  $('objective-title').textContent = `Explained: ${model.objective?.name}`;
  $('objective-why').textContent = model.objective?.why;
  const { width, height } = model.preprocessing;
  for (const canvas of [$('photograph'), $('accentuated'), $('difference')]) {
    Object.assign(canvas, { width, height });
  }
  $('temperature').min = Math.log10(0.1);
  $('temperature').max = Math.log10(3);
  $('network').textContent = model.source;
  document.title = `What does ${model.source} see?`;
  $('temperature-section').hidden = !('temperature' in model.parameters);
  $('temperature-live').hidden = !model.live_temperature;
  $('temperature-help').textContent = model.live_temperature
    ? 'Low is the ordinary gradient; higher, neurons that are almost active count too.'
    : `Fixed at ${model.parameters.temperature} in this file. With a file made by “onnxplain export … --live-temperature” there is a slider here.`;
  $('ascent').hidden = Boolean(model.pixels); // whose pixels are whole numbers: it makes no steps
  $('loading').hidden = false;
}

export function draw() {
  if (!state.photograph) return;
  drawPhotograph();
  drawExplanations();
  if (state.model.objective) drawFound();
  else drawClasses();
  drawAscent();
}

export function drawPhotograph() {
  const { rgb } = state.photograph;
  const { explanation } = state.slots[state.active];
  const overlaid = $('overlay').checked && explanation;
  paint($('photograph'), overlaid ? overlay(rgb, explanation.pullback) : photographImage(rgb));
  const found = explanation?.box ? [explanation.box] : [];
  const boxes = state.draft ? [state.draft] : [...found, ...Object.values(state.boxes)];
  for (const box of boxes.filter(isBox)) outline($('photograph'), box);
}

function overlay(rgb, pullback) {
  const { mean, width } = state.model.preprocessing;
  return overlayImage(rgb, pullback, mean.length, width);
}

function drawExplanations() {
  const { model, slots } = state;
  const { width, height, mean } = model.preprocessing;
  const shown = () => $('pictures').querySelectorAll('.explanation');
  while (shown().length > slots.length) [...shown()].at(-1).remove();
  while (shown().length < slots.length) {
    const figure = $('explanation').content.cloneNode(true);
    Object.assign(figure.querySelector('canvas'), { width, height });
    $('pictures').append(figure);
  }
  shown().forEach((figure, place) => {
    const { explanation } = slots[place];
    figure.ariaBusy = isStale(slots[place]);
    figure.querySelector('.kind').textContent = model.objective ? 'Explained:' : 'More';
    if (!explanation) return;
    const { name, score } = told(state, slots[place]);
    const canvas = figure.querySelector('canvas');
    figure.querySelector('.name').textContent = name;
    figure.querySelector('.percent').textContent = score;
    canvas.ariaLabel = model.objective ? `What raises ${name}` : `What would make it more ${name}`;
    paint(canvas, signedImage(explanation.pullback, mean.length, width));
  });
}

export function drawClasses() {
  const { model, photograph, slots, active } = state;
  const { probabilities } = photograph;
  if (!probabilities) return;
  const chosen = slots.map(({ target }) => target).filter((target) => target >= 0);
  const query = $('search').value;
  const indices = listed(model, probabilities, query, chosen);
  showClasses($('classes'), model, probabilities, indices, chosen);
  $('matches').textContent = query.trim() ? matches(query) : '';

  $('choosing').hidden = slots.length < 2;
  slots.forEach(({ target }, place) => {
    const button = $('choosing').children[place];
    button.ariaPressed = place === active;
    button.textContent = target < 0 ? '…' : className(model, target);
  });
}

/** What the objective says: name, number, and where. */
function drawFound() {
  const { model, photograph, slots, active } = state;
  const { box } = slots[active].explanation ?? {};
  const { name, score } = told(state, slots[active]);
  const placed = box && isBox(box) ? toPhotograph(box, photograph.size, model.preprocessing) : [];
  const where = placed.length ? `, at ${placed.map(Math.round).join(', ')}` : '';
  $('found').textContent = score ? `${name}, ${score}${where}` : '';
}

function matches(query) {
  const { length } = search(state.model, state.photograph.probabilities, query);
  if (!length) return `No class is called “${query.trim()}”.`;
  return length === 1 ? '1 class' : `${length} classes, the likeliest first`;
}

export function drawAscent() {
  const { model, slots, active, ascent } = state;
  const { name } = told(state, slots[active]);
  const begun = ascent?.scores.length > 1;
  $('climb').hidden = $('reset').hidden = !begun;
  $('ascent').classList.toggle('second', active === 1);
  for (const named of $('ascent').querySelectorAll('.ascent-class')) named.textContent = name;
  if (!begun) return;
  const channels = model.preprocessing.mean.length;
  const added = ascent.x.map((value, i) => value - ascent.start[i]);
  paint($('accentuated'), pixelsImage(ascent.x, channels));
  paint($('difference'), signedImage(added, channels, model.preprocessing.width));
  $('steps-done').textContent = `After ${count(ascent)}`;
  const what = model.objective ? model.objective.name : `Probability of ${name}`;
  const { scores } = ascent;
  const range = model.objective ? [Math.min(...scores), Math.max(...scores)] : [0, 1];
  showChart($('chart'), what, scores, (score) => scoreText(model, score), range);
}

function paint(canvas, rgba) {
  canvas.getContext('2d').putImageData(new ImageData(rgba, canvas.width), 0, 0);
}

export function showAbout(seconds) {
  const { device, model } = state;
  const { method, objective, classes, bytes, graph } = model;
  const megabytes = (bytes[graph] / 1e6).toFixed(1);
  $('about').textContent =
    `${method} pullback of ${objective?.name ?? `${classes} classes`}, ${megabytes} MB, in ${seconds.toFixed(2)} s by ${device}`;
}

export function say(text) {
  $('status').textContent = text;
}

export function fail(error) {
  console.error(error);
  $('error').textContent = error.message;
  $('error').hidden = false;
  $('error').scrollIntoView({ block: 'nearest' });
}

export function showTemperature() {
  const { temperature } = state;
  const exported = state.model.parameters.temperature;
  const text = temperature.toPrecision(2);
  $('temperature').value = Math.log10(temperature);
  $('temperature').setAttribute('aria-valuetext', text);
  $('temperature-value').textContent = `T = ${text}`;
  $('temperature-reset').textContent = `as exported, ${exported}`;
}

export function showProgress(received, total) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  $('progress').value = received / total;
  $('megabytes').textContent =
    received < total ? `${megabytes(received)} of ${megabytes(total)} MB` : 'starting it …';
}

/** How many steps an ascent took, in words. */
export function count({ scores }) {
  const taken = scores.length - 1;
  return taken === 1 ? '1 step' : `${taken} steps`;
}
