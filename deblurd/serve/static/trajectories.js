// Series that were followed while the stage rested: a frame, the tracks up to its time over it, and a slider over time.

import { getJson, repeat } from './api.js';
import { loadTexts, say } from './texts.js';

const SERIES_MS = 5000;
const PLAY_MS = 100;
const TAIL = 12; // frames of a track that are drawn behind its object
const byId = (id) => document.getElementById(id);

let listBefore = '';
let shown = null; // tracks of the series that is shown
let name = '';
let playing = null;

const colour = (id) => `hsl(${Math.round((id * 222.492) % 360)}, 90%, 62%)`;

async function list() {
  try {
    const series = await getJson('/api/series');
    const text = JSON.stringify(series);
    if (text === listBefore) return;
    listBefore = text;
    byId('which').replaceChildren(...series.map((each) => new Option(`${each.name}: ${each.sentence}`, each.name)));
    byId('which').disabled = series.length === 0;
    if (series.length === 0) {
      byId('sentence').textContent = say('series.none');
    } else if (!series.some((each) => each.name === name)) {
      await choose(series[0].name);
    } else {
      byId('which').value = name;
    }
  } catch (err) {
    byId('sentence').textContent = err.status ? err.message : say('no_answer');
  }
}

async function choose(next) {
  try {
    shown = await getJson(`/api/series/${next}`);
    name = next;
    byId('which').value = next;
    byId('moment').max = Math.max(shown.t_s.length - 1, 0);
    byId('moment').value = 0;
    byId('sentence').textContent = shown.left_out ? say('series.left_out', { n: shown.left_out }) : byId('which').selectedOptions[0].text;
    show();
  } catch (err) {
    byId('sentence').textContent = err.status ? err.message : say('no_answer');
  }
}

// The tracks are drawn at once; the frame comes when it has been loaded, if it is still wanted.
function show() {
  if (!shown || shown.t_s.length === 0) return;
  const moment = Number(byId('moment').value);
  byId('when').textContent = `${(shown.t_s[moment] - shown.t_s[0]).toFixed(2)} s (${moment + 1} / ${shown.t_s.length})`;
  byId('moment').setAttribute('aria-valuetext', byId('when').textContent);
  byId('frame').src = `/api/series/${name}/${moment}.jpg`;
  byId('frame').hidden = false;
  draw(moment);
}

function draw(moment) {
  const canvas = byId('tracks');
  const [height, width] = shown.shape_px;
  const scale = Math.max(1, Math.ceil(1024 / Math.max(width, height)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  pen.lineWidth = 1.5 / scale + 0.3;
  const whole = byId('whole').checked;
  let drawn = 0;
  for (const track of shown.tracks) {
    const until = track.points.filter(([frame]) => frame <= moment && (whole || frame > moment - TAIL));
    const now = track.points.find(([frame]) => frame === moment);
    if (!whole && !now) continue;
    pen.strokeStyle = colour(track.id);
    pen.beginPath();
    until.forEach(([, y, x], index) => (index ? pen.lineTo(x + 0.5, y + 0.5) : pen.moveTo(x + 0.5, y + 0.5)));
    pen.stroke();
    if (now) {
      pen.beginPath();
      pen.arc(now[2] + 0.5, now[1] + 0.5, Math.max(0.6 * now[3], 2), 0, 2 * Math.PI);
      pen.stroke();
      drawn += 1;
    }
  }
  canvas.dataset.objects = drawn;
}

function play() {
  clearInterval(playing);
  playing = playing === null ? setInterval(step, PLAY_MS) : null;
  byId('play').textContent = say(playing === null ? 'series.play' : 'series.pause');
}

function step() {
  const slider = byId('moment');
  slider.value = Number(slider.value) >= Number(slider.max) ? 0 : Number(slider.value) + 1;
  show();
}

await loadTexts();
byId('which').addEventListener('change', () => choose(byId('which').value));
byId('moment').addEventListener('input', show);
byId('whole').addEventListener('change', show);
byId('play').addEventListener('click', play);
repeat(list, SERIES_MS);
