// An audio clip and its list item: play button, waveform, name and duration.

import { RATE, toWav } from './audio.js'
import { drawWave } from './wave.js'

/** Return a clip: samples for the waveform, and a blob to play and send. Default: a WAV file of the samples. */
export function makeClip(name, samples, { rate = RATE, blob = toWav(samples, rate), format = 'wav' } = {}) {
  return { name, samples, seconds: samples.length / rate, blob, format, base64: undefined }
}

export const PLAY = 'M4 2.5v11l9-5.5z'
export const PAUSE = 'M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z'
export const REMOVE = 'M4 2.6 8 6.6l4-4L13.4 4l-4 4 4 4-1.4 1.4-4-4-4 4L2.6 12l4-4-4-4z'

let playing

/** Return a list item of an audio clip, with a button that calls `remove` if it is set. */
export function clipItem(clip, remove) {
  const item = element('li', { className: 'clip' })
  const play = iconButton(PLAY, `Play ${clip.name}`)
  const canvas = element('canvas', { role: 'img', ariaLabel: `Waveform of ${clip.name}, ${spoken(clip.seconds)}` })
  const seek = element('input', {
    type: 'range',
    min: 0,
    max: 1,
    step: 0.001,
    value: 0,
    ariaLabel: `Position in ${clip.name}`,
  })
  const wave = element('div', { className: 'wave' }, canvas, seek)
  const time = element('time', { textContent: clock(clip.seconds) })
  const name = element('span', { className: 'name', textContent: clip.name, title: clip.name })
  item.append(
    play,
    wave,
    remove ? iconButton(REMOVE, `Remove ${clip.name}`) : '',
    element('div', { className: 'about' }, name, time),
  )
  const audio = new Audio()
  const url = URL.createObjectURL(clip.blob)
  audio.src = url

  const draw = () => {
    if (canvas.clientWidth > 0) drawWave(canvas, clip.samples, audio.currentTime / clip.seconds)
  }
  const follow = () => {
    seek.value = audio.currentTime / clip.seconds
    draw()
    if (!audio.paused) requestAnimationFrame(follow)
  }
  const show = () => {
    const now = !audio.paused
    play.ariaLabel = `${now ? 'Pause' : 'Play'} ${clip.name}`
    play.querySelector('path').setAttribute('d', now ? PAUSE : PLAY)
    follow()
  }
  play.onclick = () => {
    if (!audio.paused) return audio.pause()
    if (playing !== audio) playing?.pause()
    playing = audio
    audio.play().catch(() => {})
  }
  audio.onplay = audio.onpause = show
  audio.onended = () => {
    audio.currentTime = 0
    show()
  }
  seek.oninput = () => {
    audio.currentTime = seek.value * clip.seconds
    draw()
  }
  const watch = new ResizeObserver(draw)
  watch.observe(canvas)
  const dark = matchMedia('(prefers-color-scheme: dark)')
  dark.addEventListener('change', draw)
  item.discard = () => {
    audio.pause()
    audio.removeAttribute('src')
    URL.revokeObjectURL(url)
    watch.disconnect()
    dark.removeEventListener('change', draw)
    item.remove()
  }
  if (remove) {
    item.children[2].onclick = () => {
      item.discard()
      remove()
    }
  }
  return item
}

export function element(tag, fields = {}, ...children) {
  const node = Object.assign(document.createElement(tag), fields)
  if (fields.role) node.setAttribute('role', fields.role)
  node.append(...children)
  return node
}

export function iconButton(path, label) {
  const button = element('button', { type: 'button', className: 'round', ariaLabel: label })
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 16 16')
  svg.setAttribute('aria-hidden', 'true')
  svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'path'))
  svg.firstChild.setAttribute('d', path)
  button.append(svg)
  return button
}

/** Format seconds: 63.25 becomes 1:03.3. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10)
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, '0')}.${tenths % 10}`
}

const spoken = (seconds) => `${seconds.toFixed(1)} seconds`
