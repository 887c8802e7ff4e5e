// The page: it starts the network, and listens.

import { climb, stopAscent } from './climb.js';
import { download } from './download.js';
import { engine, startEngine } from './engine.js';
import {
  activate,
  compare,
  give,
  openPhotograph,
  pick,
  refresh,
  setTemperature,
} from './explain.js';
import { showFields } from './fields.js';
import { isolate } from './isolation.js';
import { nameOf, showMenu } from './menu.js';
import { listenToPointer } from './rectangle.js';
import { $, state } from './state.js';
import {
  drawClasses,
  drawPhotograph,
  fail,
  showModel,
  showProgress,
  showTemperature,
} from './view.js';

$('unserved').remove();
await isolate();
try {
  const site = await described('model.json');
  startEngine(showProgress);
  showMenu(site, choose, openAddress);
  listen();
  await use(site);
} catch (error) {
  fail(error);
  $('loading').hidden = true;
}

async function described(address) {
  return (await fetched(address)).json();
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The server has no ${address} (${response.status}).`);
  return response;
}

/** Load a network; the photograph that is open is explained by it. */
async function use(model) {
  const { photograph } = state;
  stopAscent();
  Object.assign(state, { model, device: null, photograph: null, slots: [], active: 0 });
  state.temperature = model.parameters.temperature ?? 1;
  $('stage').inert = true; // what it shows is of the network before
  showModel();
  showFields();
  showTemperature();
  if (photograph) openPhotograph(photograph.file);
  state.device = await engine.load(model);
  $('loading').hidden = true;
  refresh();
}

async function choose(address) {
  $('networks').disabled = true;
  $('error').hidden = true;
  try {
    await use(await described(address));
  } catch (error) {
    fail(error);
    $('loading').hidden = true;
  }
  $('networks').disabled = false;
}

async function openAddress(address) {
  try {
    const content = await (await fetched(address)).blob();
    openPhotograph(new File([content], nameOf(address)));
  } catch (error) {
    fail(error);
  }
}

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
  listenToPointer();
  $('fields').addEventListener('change', (event) => give(event.target));
  $('classes').addEventListener('click', (event) => {
    const chosen = event.target.closest('[data-class]');
    if (chosen) pick(Number(chosen.dataset.class));
  });
  $('search').addEventListener('input', drawClasses);
  $('search').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !$('search').value.trim()) return;
    $('classes').querySelector('button')?.click(); // the first that is listed
  });
  $('compare').addEventListener('change', () => compare($('compare').checked));
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
