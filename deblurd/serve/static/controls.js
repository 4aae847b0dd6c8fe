// Buttons, the label box, and the barcode reader that types into it.

import { post } from './api.js';
import { say } from './texts.js';

const ANSWER_MS = 20000;
const LABEL_SIGN = /^[A-Za-z0-9._-]$/;
const byId = (id) => document.getElementById(id);

let slide = null;
let forgetting = null;

function answer(sentence, isBad = false) {
  byId('answer').textContent = sentence;
  byId('answer').classList.toggle('bad', isBad);
  clearTimeout(forgetting);
  // what was done a while ago is not how things are
  forgetting = setTimeout(() => (byId('answer').textContent = ''), ANSWER_MS);
}

export function startControls(onDone) {
  const order = async (action, text = '') => {
    try {
      answer((await post(`/api/actions/${action}`, { text })).detail);
    } catch (err) {
      answer(err.status ? err.message : say('no_answer'), true);
    }
    onDone();
  };
  for (const button of document.querySelectorAll('[data-action]')) {
    button.addEventListener('click', async () => {
      const action = button.dataset.action;
      if (action !== 'discard' || (await sure())) await order(action);
    });
  }
  byId('label-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const label = byId('label').value;
    if (!byId('label').checkValidity()) {
      // in our own words: a browser's say nothing of what is allowed
      answer(say(label ? 'refused.label' : 'refused.no_label', { label }), true);
      return;
    }
    await order('label', byId('label').value);
    byId('label').value = '';
  });
  // a barcode reader types wherever the focus happens to be, faster than anybody could click into the box
  document.addEventListener('keydown', (event) => {
    const typing = event.target.matches?.('input:not([type=range]):not([type=radio]):not([type=checkbox])');
    if (typing || event.ctrlKey || event.altKey || event.metaKey || document.querySelector('dialog[open]')) return;
    if (LABEL_SIGN.test(event.key) && !byId('label').disabled) {
      event.stopPropagation();
      byId('label').focus();
    }
  }, true);
}

function sure() {
  const dialog = byId('confirm');
  byId('confirm-text').textContent = say('confirm.discard', { slide });
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

// status: null where nobody answers.
export function showControls(status) {
  status ??= { slide: null, actions: [], state: '', label: null };
  slide = status.slide;
  for (const button of document.querySelectorAll('[data-action]')) {
    button.disabled = !status.actions.includes(button.dataset.action);
    // one of the two makes sense at a time
    if (button.dataset.action === 'resume') button.hidden = status.state !== 'paused';
    if (button.dataset.action === 'home') button.hidden = button.disabled;
    if (button.dataset.action === 'pause') button.hidden = status.state === 'paused';
  }
  const may = status.actions.includes('label');
  for (const element of byId('label-form').elements) element.disabled = !may;
  byId('label').placeholder = status.label ?? '';
}
