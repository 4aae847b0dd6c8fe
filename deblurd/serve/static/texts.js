// Every text that people read comes from texts.json, which the server reads too.

let texts = {};

export async function loadTexts() {
  texts = await (await fetch('/static/texts.json')).json();
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll('[data-label]')) element.setAttribute('aria-label', say(element.dataset.label));
}

// The text under `key` with its {places} filled in; where n is 1, the one under `key.one` if there is one.
export function say(key, places = {}) {
  const text = (places.n === 1 && texts[`${key}.one`]) || texts[key] || key;
  return text.replace(/\{(\w+)\}/g, (_, place) => places[place] ?? '');
}
