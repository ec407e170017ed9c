// The camera: a photo, or a film as frames.

import { FRAMES, grab, snap } from './picture.js'

const find = (id) => document.getElementById(id)
/** Of a film, in milliseconds: from one frame to the next, and in all. */
const [STEP, LONGEST] = [200, 60_000]

let stream
let filming
let taken = 0

/**
 * Sets the camera's part of the page up.
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
        throw new Error('The browser gives the camera only to pages of this machine or over https.')
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
      const refused = error.name === 'NotAllowedError'
      showError(refused ? 'The browser does not allow this page to use the camera.' : error.message)
    }
    find('camera').disabled = false
  }
  find('shoot').onclick = () => {
    if (finder.videoWidth === 0) return
    add({ kind: 'image', name: `Photo ${++taken}`, frames: [snap(finder)], seconds: 0 })
    say('Photo added')
  }
  find('film').onclick = () => {
    if (filming) return finish()
    if (finder.videoWidth === 0) return
    const frames = []
    const began = performance.now()
    const step = () => {
      frames.push(grab(finder))
      const seconds = (performance.now() - began) / 1000
      find('film-time').textContent = `${seconds.toFixed(1)} s`
      if (seconds * 1000 >= LONGEST) finish()
    }
    filming = { frames, began, timer: setInterval(step, STEP) }
    step()
    show()
    say('Filming')
  }
  find('camera-off').onclick = () => {
    close()
    find('camera').focus()
  }

  function finish() {
    const { frames, began, timer } = filming
    clearInterval(timer)
    filming = undefined
    const seconds = (performance.now() - began) / 1000
    const count = Math.min(FRAMES, frames.length)
    const kept = Array.from({ length: count }, (_, i) => frames[Math.floor(((i + 0.5) * frames.length) / count)])
    add({ kind: 'video', name: `Film ${++taken}`, frames: kept, seconds })
    show()
    say('Film added')
  }

  function close() {
    if (filming) finish()
    for (const track of stream?.getTracks() ?? []) track.stop()
    stream = undefined
    finder.srcObject = null
    find('viewer').hidden = true
    find('camera').ariaPressed = 'false'
  }

  function show() {
    find('film').ariaPressed = String(Boolean(filming))
    find('film-text').textContent = filming ? 'Finish' : 'Record a film'
    find('film-time').textContent = ''
  }
}
