// The list of slides, and what happened.

import { getJson } from './api.js';
import { choose, chosenSlide } from './mosaic.js';
import { say } from './texts.js';

const byId = (id) => document.getElementById(id);

let slidesBefore = '';
let logBefore = '';

export async function showSlides() {
  const slides = await getJson('/api/slides');
  const text = JSON.stringify(slides);
  if (text === slidesBefore) return;
  slidesBefore = text;
  byId('slide-list').replaceChildren(...(slides.length ? slides.map(slideItem) : [made('li', say('slides.none'))]));
}

function slideItem(slide) {
  const item = made('li', '', `state-${slide.state}`);
  const button = made('button');
  button.type = 'button';
  button.disabled = !slide.has_mosaic;
  button.setAttribute('aria-label', `${say('slides.open', { slide: slide.folder })}: ${slide.verdict}`);
  button.addEventListener('click', () => choose(slide.state === 'growing' ? null : slide.folder));
  if (slide.has_thumbnail) {
    const image = made('img');
    image.src = `/api/slides/${slide.folder}/thumbnail.png`;
    image.alt = '';
    image.loading = 'lazy';
    button.append(image);
  } else {
    button.append(made('span', say('slides.no_thumbnail'), 'no-thumbnail'));
  }
  const fields = slide.fields === null ? '' : `${say('slides.fields', { n: slide.fields })}; `;
  button.append(made('strong', slide.folder), made('span', fields + slide.verdict, 'verdict'));
  item.append(button);
  return item;
}

// What deblurd said, newest first; of a slide that somebody chose, its own journal.
export async function showLog(alertCount) {
  const slide = chosenSlide();
  const wanted = slide ?? `alerts ${alertCount}`;
  if (wanted === logBefore) return;
  const lines = slide === null
    ? (await getJson('/api/alerts')).map(({ utc, level, text }) => ({ utc, level, text }))
    : (await getJson(`/api/slides/${slide}/events`)).map(({ utc, kind, text }) => ({ utc, level: 'info', text: `${kind}: ${text}` }));
  logBefore = wanted;
  byId('log-title').textContent = slide === null ? say('log.title') : say('log.of_slide', { slide });
  const items = lines.reverse().map(({ utc, level, text }) => {
    const item = made('li', '', level);
    const at = new Date(utc);
    const time = made('time', slide === null ? at.toLocaleTimeString() : at.toLocaleString());
    time.dateTime = utc;
    item.append(time, made('span', text));
    return item;
  });
  byId('alert-list').replaceChildren(...(items.length ? items : [made('li', say('log.none'))]));
}

function made(name, text = '', className = '') {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = className;
  return element;
}
