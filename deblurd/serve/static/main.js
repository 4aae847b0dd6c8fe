// One question several times a second; what follows from its answer is asked when it has changed.

import { getJson, post, repeat } from './api.js';
import { showLive, startCompare } from './compare.js';
import { showControls, startControls } from './controls.js';
import { showMeters, startMeters } from './meters.js';
import { showMosaic, startMosaic } from './mosaic.js';
import { showLog, showSlides } from './slides.js';
import { loadTexts, say } from './texts.js';

const STATUS_MS = 400;
const SLIDES_MS = 3000;
const byId = (id) => document.getElementById(id);

function complain(err) {
  if (err.status === 401) {
    if (!byId('login').open) byId('login').showModal();
    return;
  }
  document.body.classList.add('stale');
  // nobody is there to do it
  showControls(null);
  byId('sentence').textContent = err.status ? err.message : say('no_answer');
}

async function look() {
  try {
    const status = await getJson('/api/status');
    document.body.classList.remove('stale');
    document.body.dataset.state = status.state;
    if (byId('sentence').textContent !== status.sentence) byId('sentence').textContent = status.sentence;
    showControls(status);
    showMeters(status);
    showLive(status);
    showMosaic(status);
    await showLog(status.alerts);
  } catch (err) {
    complain(err);
  }
}

async function login(event) {
  event.preventDefault();
  try {
    await post('/api/login', { token: byId('token').value });
    byId('login').close();
    byId('login-answer').textContent = '';
    await look();
  } catch (err) {
    byId('login-answer').textContent = err.status ? err.message : say('no_answer');
  }
  byId('token').value = '';
}

await loadTexts();
byId('login-form').addEventListener('submit', login);
startControls(look);
startCompare();
startMeters();
startMosaic();
repeat(look, STATUS_MS);
repeat(() => showSlides().catch(complain), SLIDES_MS);
