// Waveforms on canvases, in the colors of the page.

const BAR = 3

/** Draw a waveform of bars, each the peak of its samples. Bars before `position` (0 to 1) have the main color. */
export function drawWave(canvas, samples, position = 0, scale = peak(samples)) {
  const { width, height } = sized(canvas)
  const paint = canvas.getContext('2d')
  const style = getComputedStyle(canvas)
  const ratio = devicePixelRatio
  const bars = Math.max(1, Math.floor(width / (BAR * ratio)))
  paint.clearRect(0, 0, width, height)
  for (let bar = 0; bar < bars; bar++) {
    const from = Math.floor((bar * samples.length) / bars)
    const to = Math.max(from + 1, Math.floor(((bar + 1) * samples.length) / bars))
    const size = Math.max(ratio, (peak(samples, from, to) / scale) * height)
    paint.fillStyle = style.getPropertyValue(bar / bars < position ? '--main' : '--wave')
    paint.fillRect(bar * BAR * ratio, (height - size) / 2, (BAR - 1) * ratio, size)
  }
}

/** Set the canvas size to its size in device pixels. */
function sized(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio)
  const height = Math.round(canvas.clientHeight * devicePixelRatio)
  if (canvas.width !== width) canvas.width = width
  if (canvas.height !== height) canvas.height = height
  return { width, height }
}

function peak(samples, from = 0, to = samples.length) {
  let most = 1e-3
  for (let i = from; i < to && i < samples.length; i++) most = Math.max(most, Math.abs(samples[i]))
  return most
}
