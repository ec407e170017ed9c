// Pictures and films as the server wants them, and how they are shown. A film becomes frames here: what the browser can play, the
// server can see, whatever decoders it has.

import { element, iconButton, PAUSE, PLAY, REMOVE } from './clip.js'

/** The longest side of a picture and of a frame, in pixels: models look at tiles of less. */
const PICTURE_SIDE = 2048
const FRAME_SIDE = 640
/** Frames that a film becomes. */
export const FRAMES = 32
/** A film that does not go on for so long is given up, in milliseconds. */
const PATIENCE = 60_000
/** How long each frame is shown when a film is played, at most, in milliseconds. */
const SLOWEST = 500

/** Any picture that the browser can show, upright. */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' }).catch(() => {
    throw new Error(`${file.name} is no picture that this browser can read.`)
  })
  // What loses nothing stays so.
  const type = file.type === 'image/jpeg' ? 'image/jpeg' : 'image/png'
  const url = drawn(bitmap, bitmap.width, bitmap.height, PICTURE_SIDE).toDataURL(type, 0.95)
  bitmap.close()
  return { kind: 'image', name: file.name, frames: [url], seconds: 0 }
}

/** Any film that the browser can play, as frames at even distances. */
export async function readFilm(file, most = FRAMES) {
  const video = element('video', { muted: true, playsInline: true, preload: 'auto' })
  const url = URL.createObjectURL(file)
  try {
    video.src = url
    await happened(video, 'loadeddata', `${file.name} is no film that this browser can read.`)
    // What a browser has recorded does not say how long it is until somebody has been at its end.
    if (video.duration === Number.POSITIVE_INFINITY) {
      const there = happened(video, 'seeked', `${file.name} cannot be read to its end.`)
      video.currentTime = 1e6
      await there
    }
    const { videoWidth: width, videoHeight: height } = video
    const duration = Number.isFinite(video.duration) ? video.duration : video.currentTime
    if (!(width > 0 && duration > 0)) throw new Error(`${file.name} has no pictures in it.`)
    const frames = []
    for (let i = 0; i < most; i++) {
      const there = happened(video, 'seeked', `${file.name} cannot be read to its end.`)
      video.currentTime = ((i + 0.5) / most) * duration
      await there
      frames.push(drawn(video, width, height, FRAME_SIDE).toDataURL('image/jpeg', 0.9))
    }
    return { kind: 'video', name: file.name, frames, seconds: duration }
  } finally {
    video.removeAttribute('src')
    video.load()
    URL.revokeObjectURL(url)
  }
}

function happened(video, name, otherwise) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(otherwise)), PATIENCE)
    const done = (finish) => () => {
      clearTimeout(late)
      finish()
    }
    video.addEventListener(name, done(resolve), { once: true })
    const fail = () => reject(new Error(otherwise))
    video.addEventListener('error', done(fail), { once: true })
  })
}

/** A frame of a live picture. */
export const grab = (video) =>
  drawn(video, video.videoWidth, video.videoHeight, FRAME_SIDE).toDataURL('image/jpeg', 0.9)
export const snap = (video) => drawn(video, video.videoWidth, video.videoHeight, PICTURE_SIDE).toDataURL('image/jpeg', 0.95) // biome-ignore format: one line

function drawn(source, width, height, most) {
  const share = Math.min(1, most / Math.max(width, height))
  const canvas = element('canvas', {
    width: Math.max(1, Math.round(width * share)),
    height: Math.max(1, Math.round(height * share)),
  })
  canvas.getContext('2d').drawImage(source, 0, 0, canvas.width, canvas.height)
  return canvas
}

const base64Of = (url) => url.slice(url.indexOf(',') + 1)

/** A part of a message. */
export const partOf = ({ kind, frames }) =>
  kind === 'image'
    ? { type: 'image_url', image_url: { url: frames[0] } }
    : { type: 'video_url', video_url: { url: `data:video/jpeg;base64,${frames.map(base64Of).join(',')}` } }

/** A list item: the picture, or a film that plays its frames; with `remove`, it has a button for it. */
export function pictureItem({ kind, name, frames, seconds }, remove) {
  const item = element('li', { className: `clip picture ${kind}` })
  const image = element('img', { src: frames[0], alt: name })
  const about = element(
    'div',
    { className: 'about' },
    element('span', { className: 'name', textContent: name, title: name }),
  )
  let timer
  let at = 0
  const stop = () => {
    clearInterval(timer)
    timer = undefined
  }
  item.append(image)
  if (kind === 'video') {
    const play = iconButton(PLAY, `Play ${name}`)
    const show = () => {
      play.ariaLabel = `${timer ? 'Pause' : 'Play'} ${name}`
      play.querySelector('path').setAttribute('d', timer ? PAUSE : PLAY)
    }
    play.onclick = () => {
      if (timer) stop()
      else {
        const pace = Math.min(SLOWEST, (1000 * seconds) / frames.length)
        timer = setInterval(() => {
          at = (at + 1) % frames.length
          image.src = frames[at]
          if (at === 0) {
            stop()
            show()
          }
        }, pace)
      }
      show()
    }
    item.append(play)
    about.append(element('time', { textContent: `${seconds.toFixed(1)} s` }))
  }
  item.append(about)
  item.discard = () => {
    stop()
    item.remove()
  }
  if (remove) {
    const button = iconButton(REMOVE, `Remove ${name}`)
    button.classList.add('remove')
    button.onclick = () => {
      item.discard()
      remove()
    }
    item.append(button)
  }
  return item
}
