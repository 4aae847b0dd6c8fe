// Figures, the speed gauge, and two charts of the last five minutes.

import { say } from './texts.js';

const KEPT_S = 300;
const byId = (id) => document.getElementById(id);

const charts = [];

export const speedText = (um_s) => (um_s >= 1000 ? `${(um_s / 1000).toFixed(1)} mm/s` : `${Math.round(um_s)} µm/s`);

export function startMeters() {
  for (const [id, what, colour] of [['chart-frames', 'meters.frames', '#7cc4ff'], ['chart-backlog', 'meters.backlog', '#ffb86b']]) {
    const element = byId(id);
    const plot = new uPlot({
      title: say(what), width: element.clientWidth || 160, height: 90, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false, range: () => [-KEPT_S, 0] }, y: { range: (_, least, most) => [0, Math.max(most ?? 0, 1) * 1.1] } },
      axes: [
        { show: false },
        { stroke: '#c3ccd6', grid: { stroke: '#333c46', width: 1 }, size: 34, font: '11px sans-serif', splits: (u) => [0, u.scales.y.max / 1.1], values: (_, values) => values.map((value) => (value < 10 ? value.toFixed(1) : Math.round(value))) },
      ],
      series: [{}, { stroke: colour, width: 1.5, points: { show: false } }],
    }, [[], []], element);
    new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: 90 })).observe(element);
    charts.push({ element, plot, what, times: [], values: [] });
  }
}

export function showMeters(status) {
  const now = performance.now() / 1000;
  const backlog = Object.values(status.backlog).reduce((sum, count) => sum + count, 0);
  [rate(status, now), backlog].forEach((value, n) => {
    const { element, plot, what, times, values } = charts[n];
    times.push(now);
    values.push(value);
    while (times[0] < now - KEPT_S) {
      times.shift();
      values.shift();
    }
    plot.setData([times.map((time) => time - now), values]);
    element.setAttribute('aria-label', say('meters.chart_alt', { what: say(what), value: value.toFixed(1) }));
  });
  showSpeed(status);
  const lost = Object.entries(status.lost).map(([cause, count]) => `${count} (${say(`lost.${cause}`)})`).join(', ');
  const places = { free: Math.floor(status.free_bytes / 1e9), hours: status.disk_hours === null ? '' : status.disk_hours.toFixed(1) };
  figures([
    ['meters.fields', say('meters.fields_text', status)],
    ['meters.lost', lost || say('meters.lost_none')],
    ['meters.engine', say('meters.engine_text', status)],
    ...gpu(status.gpu),
    ['meters.disk', say(status.disk_hours === null ? 'meters.disk_text' : 'meters.disk_hours', places)],
  ]);
}

function gpu(found) {
  if (!found) return [];
  const places = { busy: found.busy_percent, used: (found.used_bytes / 1e9).toFixed(1), total: Math.round(found.total_bytes / 1e9) };
  return [['meters.gpu', say('meters.gpu_text', places)]];
}

const counted = []; // [time, frames] of the last seconds

function rate(status, now) {
  counted.push([now, status.frames]);
  while (counted.length > 2 && counted[0][0] < now - 3) counted.shift();
  const [[then, before]] = counted;
  return now > then ? Math.max(status.frames - before, 0) / (now - then) : 0;
}

function showSpeed(status) {
  const limit = status.speed_limit_um_s;
  const most = limit === null ? Math.max(status.speed_um_s, 1) : 1.5 * limit;
  const gauge = byId('speed-gauge');
  byId('speed-text').textContent = speedText(status.speed_um_s) + (limit === null ? '' : ` (${say('meters.limit', { speed: speedText(limit) })})`);
  gauge.setAttribute('aria-valuemax', Math.round(most));
  gauge.setAttribute('aria-valuenow', Math.round(Math.min(status.speed_um_s, most)));
  gauge.setAttribute('aria-valuetext', byId('speed-text').textContent);
  gauge.classList.toggle('too-fast', limit !== null && status.speed_um_s > limit);
  byId('speed-bar').style.width = `${Math.min((100 * status.speed_um_s) / most, 100)}%`;
  byId('speed-limit').hidden = limit === null;
  byId('speed-limit').style.left = `${100 / 1.5}%`;
  byId('advice').hidden = status.advice === null;
  if (byId('advice').textContent !== (status.advice ?? '')) byId('advice').textContent = status.advice ?? '';
}

function figures(rows) {
  const list = byId('figures');
  if (list.children.length !== 2 * rows.length) {
    list.replaceChildren(...rows.flatMap(([key]) => {
      const term = document.createElement('dt');
      term.textContent = say(key);
      return [term, document.createElement('dd')];
    }));
  }
  rows.forEach(([, text], n) => {
    const cell = list.children[2 * n + 1];
    if (cell.textContent !== text) cell.textContent = text;
  });
}
