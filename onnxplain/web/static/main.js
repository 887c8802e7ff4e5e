// The page: it starts the network, and listens.

import { climb, stopAscent } from './climb.js';
import { download } from './download.js';
import { engine, startEngine } from './engine.js';
import { activate, compare, openPhotograph, pick, refresh, setTemperature } from './explain.js';
import { isolate } from './isolation.js';
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
  const response = await fetch('model.json');
  if (!response.ok) throw new Error(`The server has no model.json (${response.status}).`);
  state.model = await response.json();
  state.temperature = state.model.parameters.temperature ?? 1;
  showModel();
  showTemperature();
  startEngine(showProgress);
  listen();
  state.device = await engine.load(state.model);
  refresh();
} catch (error) {
  fail(error);
}
$('loading').hidden = true;

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
