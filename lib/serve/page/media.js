// Images and videos: their conversion for the server, and their list items. Videos are converted to frames here, so the server
// needs no video decoder and supports every format that the browser plays.

import { element, iconButton, PAUSE, PLAY, REMOVE } from './clip.js'

/** Largest side of an image and of a video frame, in pixels: models encode smaller tiles. */
const IMAGE_SIDE = 2048
const FRAME_SIDE = 640
/** Number of frames sampled from a video. */
export const FRAMES = 32
/** Longest wait for one event of a video, in milliseconds. */
const PATIENCE = 60_000
/** Longest time per frame during playback, in milliseconds. */
const SLOWEST = 500

/** Read an image that the browser can decode, rotated upright. */
export async function readImage(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' }).catch(() => {
    throw new Error(`${file.name}: this browser cannot decode the image. Convert it to PNG or JPEG.`)
  })
  // Lossless images stay lossless.
  const type = file.type === 'image/jpeg' ? 'image/jpeg' : 'image/png'
  const url = drawn(bitmap, bitmap.width, bitmap.height, IMAGE_SIDE).toDataURL(type, 0.95)
  bitmap.close()
  return { kind: 'image', name: file.name, frames: [url], seconds: 0 }
}

/** Read a video that the browser can play, as evenly spaced frames. */
export async function readVideo(file, most = FRAMES) {
  const video = element('video', { muted: true, playsInline: true, preload: 'auto' })
  const url = URL.createObjectURL(file)
  try {
    video.src = url
    await once(video, 'loadeddata', `${file.name}: this browser cannot decode the video. Convert it to MP4 or WebM.`)
    // A video recorded by a browser has no known duration until its end has been read.
    if (video.duration === Number.POSITIVE_INFINITY) {
      const there = once(video, 'seeked', `${file.name}: this browser cannot decode the video to its end.`)
      video.currentTime = 1e6
      await there
    }
    const { videoWidth: width, videoHeight: height } = video
    const duration = Number.isFinite(video.duration) ? video.duration : video.currentTime
    if (!(width > 0 && duration > 0)) throw new Error(`${file.name}: the video has no frames.`)
    const frames = []
    for (let i = 0; i < most; i++) {
      const there = once(video, 'seeked', `${file.name}: this browser cannot decode the video to its end.`)
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

function once(video, name, otherwise) {
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

/** Capture a small (video) or large (image) frame of the camera as a JPEG URL. */
export const grab = (video) =>
  drawn(video, video.videoWidth, video.videoHeight, FRAME_SIDE).toDataURL('image/jpeg', 0.9)
export const snap = (video) => drawn(video, video.videoWidth, video.videoHeight, IMAGE_SIDE).toDataURL('image/jpeg', 0.95) // biome-ignore format: one line

function drawn(source, width, height, most) {
  const scale = Math.min(1, most / Math.max(width, height))
  const canvas = element('canvas', {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  })
  canvas.getContext('2d').drawImage(source, 0, 0, canvas.width, canvas.height)
  return canvas
}

const base64Of = (url) => url.slice(url.indexOf(',') + 1)

/** Return the message part of an image or video. */
export const partOf = ({ kind, frames }) =>
  kind === 'image'
    ? { type: 'image_url', image_url: { url: frames[0] } }
    : { type: 'video_url', video_url: { url: `data:video/jpeg;base64,${frames.map(base64Of).join(',')}` } }

/** Return a list item of an image, or of a video that plays its frames, with a button that calls `remove` if it is set. */
export function mediaItem({ kind, name, frames, seconds }, remove) {
  const item = element('li', { className: `clip media ${kind}` })
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
