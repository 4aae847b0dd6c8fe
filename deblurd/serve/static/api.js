// Questions to the daemon. A question that takes too long is given up, so that the page never hangs on one.

const MOST_MS = 10000;

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(MOST_MS) });
  if (!answer.ok) {
    const detail = await answer.json().then((body) => body.detail, () => answer.statusText);
    throw new Refused(answer.status, typeof detail === 'string' ? detail : answer.statusText);
  }
  return answer;
}

export const getJson = async (path) => (await ask(path)).json();
export const getBlob = async (path) => (await ask(path)).blob();
export const post = async (path, body) =>
  (await ask(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).json();

// Calls `work` again and again, `pauseMs` after it has ended, while the page is looked at.
export function repeat(work, pauseMs) {
  const turn = async () => {
    if (!document.hidden) await work();
    setTimeout(turn, pauseMs);
  };
  turn();
}
