// The camera: takes an image, or records a video as frames.

import { FRAMES, grab, snap } from './media.js'

const find = (id) => document.getElementById(id)
/** Time between two frames of a video and its maximum duration, in milliseconds. */
const [STEP, LONGEST] = [200, 60_000]

let stream
let recording
let captured = 0

/**
 * Set up the camera controls of the page.
 * @param {{ add: (clip: object) => void, showError: (message?: string) => void, say: (text: string) => void }} page
 */
export function setUpCamera({ add, showError, say }) {
  const finder = find('finder')
  find('camera').hidden = false
  find('camera').onclick = async () => {
    if (stream) return close()
    showError()
    find('camera').disabled = true
    try {
      if (!navigator.mediaDevices?.getUserMedia) {
        throw new Error('The browser allows the camera only for pages of this machine or over https.')
      }
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: 'user' } })
      finder.srcObject = stream
      find('viewer').hidden = false
      find('camera').ariaPressed = 'true'
      await finder.play()
      say('The camera is on')
      find('shoot').focus()
    } catch (error) {
      close()
      const isDenied = error.name === 'NotAllowedError'
      showError(
        isDenied
          ? 'The browser does not allow this page to use the camera. Allow it in the site settings.'
          : error.message,
      )
    }
    find('camera').disabled = false
  }
  find('shoot').onclick = () => {
    if (finder.videoWidth === 0) return
    add({ kind: 'image', name: `Image ${++captured}`, frames: [snap(finder)], seconds: 0 })
    say('Image added')
  }
  find('video').onclick = () => {
    if (recording) return finish()
    if (finder.videoWidth === 0) return
    const frames = []
    const began = performance.now()
    const step = () => {
      frames.push(grab(finder))
      const seconds = (performance.now() - began) / 1000
      find('video-time').textContent = `${seconds.toFixed(1)} s`
      if (seconds * 1000 >= LONGEST) finish()
    }
    recording = { frames, began, timer: setInterval(step, STEP) }
    step()
    show()
    say('Recording a video')
  }
  find('camera-off').onclick = () => {
    close()
    find('camera').focus()
  }

  function finish() {
    const { frames, began, timer } = recording
    clearInterval(timer)
    recording = undefined
    const seconds = (performance.now() - began) / 1000
    const count = Math.min(FRAMES, frames.length)
    const kept = Array.from({ length: count }, (_, i) => frames[Math.floor(((i + 0.5) * frames.length) / count)])
    add({ kind: 'video', name: `Video ${++captured}`, frames: kept, seconds })
    show()
    say('Video added')
  }

  function close() {
    if (recording) finish()
    for (const track of stream?.getTracks() ?? []) track.stop()
    stream = undefined
    finder.srcObject = null
    find('viewer').hidden = true
    find('camera').ariaPressed = 'false'
  }

  function show() {
    find('video').ariaPressed = String(Boolean(recording))
    find('video-text').textContent = recording ? 'Finish' : 'Record a video'
    find('video-time').textContent = ''
  }
}
