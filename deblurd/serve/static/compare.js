// The newest field before and after deblurring, under a line that can be moved; the camera's picture where there is no slide.

import { getBlob } from './api.js';
import { say } from './texts.js';

const byId = (id) => document.getElementById(id);

let shown = null;
let busy = false;

export function startCompare() {
  const divide = () => {
    const percent = Number(byId('divide').value);
    byId('after').style.clipPath = `inset(0 0 0 ${percent}%)`;
    byId('compare-line').style.left = `${percent}%`;
  };
  byId('divide').addEventListener('input', divide);
  divide();
}

// Both pictures are exchanged at once, and only when both are there.
export async function showLive(status) {
  const isField = status.newest_field !== null;
  const wanted = isField ? `field ${status.slide} ${status.newest_field}` : status.newest_frame === null ? null : `frame ${status.newest_frame}`;
  if (wanted === null || wanted === shown || busy) return;
  busy = true;
  try {
    const kinds = isField ? ['before', 'after'] : ['camera'];
    const blobs = await Promise.all(kinds.map((kind) => getBlob(`/api/live/${kind}.jpg`)));
    if (blobs.some((blob) => blob.size === 0)) return;
    const urls = blobs.map((blob) => URL.createObjectURL(blob));
    await Promise.all(['before', 'after'].map((id, n) => exchange(byId(id), urls[n])));
    byId('compare-line').hidden = byId('divide').hidden = !isField;
    byId('before').alt = say(isField ? 'live.alt_before' : 'live.alt_camera');
    byId('after').alt = say('live.alt_after');
    byId('tag-before').hidden = false;
    byId('tag-before').textContent = say(isField ? 'live.before' : 'live.camera');
    byId('tag-after').hidden = !isField;
    byId('tag-after').textContent = say('live.after');
    shown = wanted;
  } catch {
    // the status says what is wrong; asked again soon
  } finally {
    busy = false;
  }
}

async function exchange(image, url) {
  const old = image.src;
  image.hidden = url === undefined;
  if (url !== undefined) {
    image.src = url;
    await image.decode();
  }
  if (old.startsWith('blob:')) URL.revokeObjectURL(old);
}
