// What is drawn over the mosaic: the fields by how they were treated, and the place where the stage stands.

const GATES = { deblur: '0, 190, 110', sharp: '70, 140, 255', blank: '160, 160, 160' };

function colour(layer, field) {
  if (layer === 'coverage') return 'rgba(90, 170, 255, 0.35)';
  if (layer === 'sharpness') {
    return field.sharpness === null ? 'rgba(255, 255, 255, 0.2)' : `hsla(${Math.round(120 * field.sharpness)}, 90%, 50%, 0.4)`;
  }
  if (field.gate === null) return 'rgba(255, 255, 255, 0.3)';
  return `rgba(${GATES[field.gate] ?? '235, 60, 60'}, 0.4)`;
}

// toScreen: from pixels of the mosaic (x, y) to pixels of the canvas. info: of the mosaic. stage_um: (y, x) or null.
export function drawLayers(canvas, toScreen, info, layer, fields, stage_um) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext('2d');
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (!info || !info.field_px) return;
  const box = (y_um, x_um) => {
    const y = (y_um - info.origin_um[0]) / info.pixel_size_um;
    const x = (x_um - info.origin_um[1]) / info.pixel_size_um;
    const [h, w] = info.field_px;
    const a = toScreen(x - w / 2, y - h / 2);
    const b = toScreen(x + w / 2, y + h / 2);
    return [a.x, a.y, b.x - a.x, b.y - a.y];
  };
  if (layer !== 'none') {
    for (const field of fields) {
      const [x, y, w, h] = box(field.y_um, field.x_um);
      if (x + w < 0 || y + h < 0 || x > width || y > height) continue;
      pen.fillStyle = colour(layer, field);
      pen.fillRect(x, y, w, h);
      pen.strokeStyle = 'rgba(0, 0, 0, 0.35)';
      pen.strokeRect(x, y, w, h);
    }
  }
  if (stage_um) {
    const [x, y, w, h] = box(stage_um[0], stage_um[1]);
    pen.lineWidth = 3;
    pen.strokeStyle = '#000';
    pen.strokeRect(x, y, w, h);
    pen.lineWidth = 1.5;
    pen.strokeStyle = '#ffd54a';
    pen.strokeRect(x, y, w, h);
    pen.lineWidth = 1;
  }
}
