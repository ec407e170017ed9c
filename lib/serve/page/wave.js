// Waveforms on canvases, in the colours of the page.

const BAR = 3

/** Draws the loudest sample of each stretch as a bar; what lies before `position` (0 to 1) in the main colour. */
export function drawWave(canvas, samples, position = 0, scale = loudest(samples)) {
  const { width, height } = sized(canvas)
  const paint = canvas.getContext('2d')
  const style = getComputedStyle(canvas)
  const ratio = devicePixelRatio
  const bars = Math.max(1, Math.floor(width / (BAR * ratio)))
  paint.clearRect(0, 0, width, height)
  for (let bar = 0; bar < bars; bar++) {
    const from = Math.floor((bar * samples.length) / bars)
    const to = Math.max(from + 1, Math.floor(((bar + 1) * samples.length) / bars))
    const size = Math.max(ratio, (loudest(samples, from, to) / scale) * height)
    paint.fillStyle = style.getPropertyValue(bar / bars < position ? '--main' : '--wave')
    paint.fillRect(bar * BAR * ratio, (height - size) / 2, (BAR - 1) * ratio, size)
  }
}

/** As many pixels as the canvas covers on the screen. */
function sized(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio)
  const height = Math.round(canvas.clientHeight * devicePixelRatio)
  if (canvas.width !== width) canvas.width = width
  if (canvas.height !== height) canvas.height = height
  return { width, height }
}

function loudest(samples, from = 0, to = samples.length) {
  let most = 1e-3
  for (let i = from; i < to && i < samples.length; i++) most = Math.max(most, Math.abs(samples[i]))
  return most
}
