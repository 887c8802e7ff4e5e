// What an objective takes besides the photograph: a field for each of the inputs that its file
// declares, and from what a person gives to what the graph takes.

import { toInput, toRegion } from './boxes.js';
import { engine } from './engine.js';
import { $, state } from './state.js';

const RANKS = 10; // how many of the best are offered
const RECTANGLE =
  'Draw a rectangle on the photograph, or give its left, top, right and bottom in its pixels; where this is empty, the network finds the place.';

/** Fields for the network's objective, all as it is by default. */
export function showFields() {
  const inputs = Object.entries(state.model.objective?.inputs ?? {});
  Object.assign(state, { inputs: {}, boxes: {} });
  state.target = state.model.objective?.inputs.target?.default ?? -1;
  $('fields').replaceChildren(...inputs.map(([name, one]) => field(name, one)));
  $('photograph').classList.toggle('drawable', Boolean(rectangleField()));
}

/** The field that a drawn rectangle goes to. */
export function rectangleField() {
  return $('fields').querySelector('[data-rectangle]');
}

/** Rectangles belong to a photograph. */
export function clearRectangles() {
  for (const control of $('fields').querySelectorAll('[data-rectangle]')) {
    control.value = '';
    keep(control.dataset.input, null);
  }
}

/** The inputs that must be given, and are not yet. */
export function missing() {
  const inputs = Object.entries(state.model.objective?.inputs ?? {});
  return inputs
    .filter(([name, one]) => one.default === null && !(name in state.inputs))
    .map(([name]) => name);
}

const turns = new WeakMap(); // of each field: files are read in any order, and the newest wins

/**
 * Take what a person gave; an error where it cannot be used, and then all stays as it was.
 *
 * @returns whether it was taken: nothing else was given to the field meanwhile
 */
export async function take(control) {
  const { model } = state;
  const name = control.dataset.input;
  const one = model.objective.inputs[name];
  if (name === 'target') {
    state.target = Number(control.value);
    return true;
  }
  const turn = Symbol(name);
  turns.set(control, turn);
  const isNewest = () => turns.get(control) === turn && model === state.model;
  try {
    const { value, box } = await read(control, name, one);
    if (isNewest()) keep(name, value, box);
  } catch (error) {
    if (isNewest()) throw error;
  }
  return isNewest();
}

/** Null is the default; a rectangle is drawn too. */
function keep(name, value, box = null) {
  state.inputs = replaced(state.inputs, name, value);
  state.boxes = replaced(state.boxes, name, box);
}

function replaced(given, name, value) {
  const { [name]: before, ...others } = given;
  return value === null ? others : { ...others, [name]: value };
}

async function read(control, name, one) {
  if (control.dataset.rectangle) return rectangle(control.value, name, one);
  if (control.files) return { value: await vector(control.files[0], name, one) };
  return { value: number(control.validity.badInput ? 'none' : control.value, name, one) };
}

function rectangle(text, name, one) {
  if (!text.trim()) return { value: null };
  const sides = text.split(',').map((side) => Number(side.trim() || NaN));
  if (sides.length !== 4 || !sides.every(Number.isFinite)) {
    throw new Error(`“${name}” is left, top, right and bottom, four numbers with commas between.`);
  }
  if (!state.photograph) throw new Error('Choose a photograph first: the rectangle is in it.');
  const { preprocessing } = state.model;
  const box = toInput(sides, state.photograph.size, preprocessing);
  return { value: one.kind === 'mask' ? toRegion(box, one.shape, preprocessing) : box, box };
}

function number(text, name, one) {
  if (!text.trim() && one.default !== null) return null;
  const value = Number(text || NaN);
  const { limit } = one;
  if (!Number.isFinite(value)) throw new Error(`“${name}” is a number: ${one.meaning}.`);
  if (one.kind === 'index' && !Number.isInteger(value)) {
    throw new Error(`“${name}” is a whole number: ${one.meaning}.`);
  }
  if (limit !== null && !(value >= -1 && value < limit)) {
    throw new Error(`“${name}” is from 0 to ${limit - 1}, or -1: ${one.meaning}.`);
  }
  if (one.nonzero && !value) throw new Error(`“${name}” may not be 0: ${one.meaning}.`);
  return [value];
}

async function vector(file, name, one) {
  if (!file) return null; // a chooser that was emptied
  const count = one.shape.reduce((a, b) => a * b);
  const values = await (file.name.endsWith('.json') ? stored(file) : embedded(file, name, count));
  if (values.length !== count) {
    throw new Error(`“${name}” has ${count} numbers, and “${file.name}” ${values.length}.`);
  }
  if (!values.every(Number.isFinite)) {
    throw new Error(`“${file.name}” holds something else than numbers.`);
  }
  if (one.nonzero && values.every((value) => !value)) {
    throw new Error(`“${name}” is 0 everywhere: ${one.meaning}.`);
  }
  return values;
}

async function stored(file) {
  try {
    return [JSON.parse(await file.text())].flat(Infinity);
  } catch {
    throw new Error(`“${file.name}” is not JSON.`);
  }
}

/** What the network makes of another photograph. */
async function embedded(file, name, count) {
  const { objective, preprocessing, pixels } = state.model;
  if (!objective.vector) throw new Error(`“${name}” is a JSON file of ${count} numbers.`);
  const { x } = await engine.open(file, preprocessing, pixels);
  return engine.read(x, objective.vector, count);
}

function field(name, one) {
  const field = $('field').content.cloneNode(true).firstElementChild;
  const control = name === 'target' ? targets() : input(one);
  control.dataset.input = name;
  field.querySelector('.name').textContent = name;
  field.querySelector('label').append(control);
  field.querySelector('.hint').textContent = control.dataset.rectangle ? RECTANGLE : hint(one);
  return field;
}

function hint({ kind, shape, meaning }) {
  if (!shape.length) return meaning;
  const other = state.model.objective.vector ? 'a photograph, or ' : '';
  return `${meaning}: ${other}a JSON file of ${shape.join(' × ')} numbers`;
}

function input({ kind, shape, default: value, limit }) {
  const control = document.createElement('input');
  if (kind === 'mask' || kind === 'box') {
    Object.assign(control, { type: 'text', placeholder: 'left, top, right, bottom' });
    control.dataset.rectangle = kind;
  } else if (shape.length) {
    const image = state.model.objective.vector ? 'image/*,' : '';
    Object.assign(control, { type: 'file', accept: `${image}.json` });
  } else {
    const range = kind === 'index' ? { min: -1, max: limit === null ? '' : limit - 1 } : {};
    const step = kind === 'index' ? 1 : 'any';
    Object.assign(control, { type: 'number', value: value ?? '', step, ...range });
  }
  return control;
}

/** The best of the ranking, and all classes. */
function targets() {
  const { objective, labels } = state.model;
  const control = document.createElement('select');
  const ranks = Array.from({ length: Math.min(objective.ranks, RANKS) }, (_, i) => -1 - i);
  const classes = Array.from({ length: objective.classes }, (_, i) => i);
  control.append(...ranks.map((rank) => new Option(rank, rank)));
  control.append(...classes.map((i) => new Option(labels[i] ? `${i}  ${labels[i]}` : i, i)));
  control.value = state.target;
  return control;
}
