// The mosaic in OpenSeadragon: the one that grows, or a finished one.

import { getJson } from './api.js';
import { drawLayers } from './layers.js';
import { say } from './texts.js';

const REFRESH_MS = 2000;
const OLD_MS = 5000;
const byId = (id) => document.getElementById(id);

let viewer = null;
let chosen = null; // a finished slide that somebody wants to see, null: the one at work
let folder = null; // the one that is shown
let info = null;
let fields = [];
let fieldsOf = null;
let stage_um = null;
let busy = false;
let lastMs = 0;

export function startMosaic() {
  viewer = new OpenSeadragon({
    element: byId('mosaic'),
    drawer: 'canvas',
    showNavigationControl: false,
    animationTime: 0.4,
    blendTime: 0,
    imageLoaderLimit: 4,
    maxZoomPixelRatio: 4,
    minZoomImageRatio: 0.0001,
    visibilityRatio: 0,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
  });
  viewer.canvas.setAttribute('aria-label', say('mosaic.title'));
  viewer.canvas.setAttribute('role', 'application');
  viewer.addHandler('update-viewport', draw);
  viewer.addHandler('resize', draw);
  viewer.addHandler('canvas-drag', unfollow);
  viewer.addHandler('canvas-scroll', unfollow);
  viewer.addHandler('canvas-pinch', unfollow);
  byId('zoom-in').addEventListener('click', () => zoom(1.6));
  byId('zoom-out').addEventListener('click', () => zoom(1 / 1.6));
  byId('zoom-all').addEventListener('click', () => fit());
  byId('back').addEventListener('click', () => choose(null));
  for (const radio of document.querySelectorAll('[name=layer]')) {
    radio.addEventListener('change', () => {
      byId('legend').textContent = layer() === 'none' ? '' : say(`legend.${layer()}`);
      fieldsOf = null;
      lastMs = 0;
      draw();
    });
  }
}

// The slide that somebody chose to look at; null: the one at work.
export const chosenSlide = () => chosen;

export function choose(slide) {
  chosen = slide;
  byId('back').hidden = chosen === null;
  byId('follow-label').hidden = chosen !== null;
  lastMs = 0;
}

export async function showMosaic(status) {
  const wanted = chosen ?? status.slide;
  stage_um = wanted !== null && wanted === status.slide ? status.stage_um : null;
  byId('shown').textContent = wanted === null ? (folder ?? say('mosaic.none')) : wanted === status.slide ? say('mosaic.live', { slide: wanted }) : wanted;
  draw();
  const asked = wanted ?? folder; // a slide that has ended stays in sight
  if (asked === null || busy || performance.now() - lastMs < REFRESH_MS) return;
  busy = true;
  lastMs = performance.now();
  try {
    await update(asked, wanted === status.slide);
  } catch {
    // the status says what is wrong; asked again soon
  } finally {
    busy = false;
  }
}

async function update(asked, isLive) {
  const found = await getJson(`/api/slides/${asked}/mosaic`);
  if (found === null) return;
  const same = asked === folder && info && found.size_px[0] === info.size_px[0] && found.size_px[1] === info.size_px[1];
  if (!same || found.revision !== info.revision) {
    await exchange(asked, found, same);
    byId('nothing').hidden = true;
    if (!same || (isLive && byId('follow').checked)) fit(!same);
  }
  const state = `${asked} ${found.revision}`;
  if (layer() !== 'none' && fieldsOf !== state) {
    fields = await getJson(`/api/slides/${asked}/fields`);
    fieldsOf = state;
  }
  draw();
}

// Puts the new revision below sight, waits until all of it that is in view is there, and only then shows it: nothing flashes. Tiles that have not
// changed keep their address, and so come from the browser's own memory.
async function exchange(slide, next, same) {
  const old = viewer.world.getItemCount() ? viewer.world.getItemAt(viewer.world.getItemCount() - 1) : null;
  const item = await new Promise((resolve, reject) => {
    viewer.addTiledImage({
      tileSource: tileSource(slide, next),
      opacity: same ? 0 : 1,
      preload: true,
      success: (event) => resolve(event.item),
      error: reject,
    });
  });
  if (same) await Promise.race([new Promise((resolve) => item.whenFullyLoaded(resolve)), new Promise((resolve) => setTimeout(resolve, 5000))]);
  item.setOpacity(1);
  if (old) {
    old.setPreload(false);
    old.setOpacity(0);
    // tiles of it that are still on their way may arrive before it goes: OpenSeadragon complains of them otherwise
    setTimeout(() => viewer.world.removeItem(old), OLD_MS);
  }
  info = next;
  folder = slide;
}

function tileSource(slide, mosaic) {
  const source = new OpenSeadragon.TileSource({
    width: mosaic.size_px[1],
    height: mosaic.size_px[0],
    tileSize: mosaic.tile_px,
    minLevel: 0,
    maxLevel: mosaic.levels - 1,
  });
  const revision = mosaic.shards === null ? () => mosaic.revision : revisions(mosaic);
  source.tileExists = (level, x, y) => {
    const known = OpenSeadragon.TileSource.prototype.tileExists.call(source, level, x, y);
    return known && revision(mosaic.levels - 1 - level, y, x) !== undefined;
  };
  source.getTileUrl = (level, x, y) => {
    const ours = mosaic.levels - 1 - level;
    return `/api/slides/${slide}/mosaic/${ours}/${y}/${x}.jpg?revision=${revision(ours, y, x) ?? 0}`;
  };
  source.hasTransparency = () => false;
  return source;
}

// The newest revision of all shards under a tile; undefined where none is painted.
function revisions(mosaic) {
  const perLevel = [];
  for (let level = 0; level < mosaic.levels; level++) {
    const shards = Math.max((mosaic.tile_px * 2 ** level) / mosaic.shard_px, 1); // under a tile, a side
    const newest = new Map();
    for (const [key, revision] of Object.entries(mosaic.shards)) {
      const [row, column] = key.split(',').map(Number);
      const group = `${Math.floor(row / shards)},${Math.floor(column / shards)}`;
      newest.set(group, Math.max(newest.get(group) ?? 0, revision));
    }
    perLevel.push(newest);
  }
  return (level, row, column) => {
    const tiles = Math.max(mosaic.shard_px / (mosaic.tile_px * 2 ** level), 1); // in a shard, a side
    return perLevel[level].get(`${Math.floor(row / tiles)},${Math.floor(column / tiles)}`);
  };
}

const layer = () => document.querySelector('[name=layer]:checked').value;
const topItem = () => viewer.world.getItemAt(viewer.world.getItemCount() - 1);

function unfollow() {
  byId('follow').checked = false;
}

function zoom(by) {
  unfollow();
  viewer.viewport.zoomBy(by);
  viewer.viewport.applyConstraints();
}

function fit(immediately = false) {
  if (!info || !viewer.world.getItemCount()) return;
  const [y0, x0, y1, x1] = info.used_px;
  viewer.viewport.fitBounds(topItem().imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0), immediately);
}

function draw() {
  if (!viewer.world.getItemCount()) return;
  const item = topItem();
  drawLayers(byId('overlay'), (x, y) => item.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y)), info, layer(), fields, stage_um);
}
