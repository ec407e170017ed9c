// Controls for models with spoken answers: push-to-talk button, sliders, and a reference clip of the voice.

import { readAudio, toBase64 } from './audio.js'
import { clipItem, makeClip } from './clip.js'

const find = (id) => document.getElementById(id)
const SLIDERS = ['temperature', 'top-p', 'top-k', 'steps']

/** A shorter press is a click, a longer one a hold, in milliseconds. */
const HOLD = 400

let voice

/** Show the speech settings. @param {(message?: string) => void} showError @param {number} most bytes of a clip */
export function setUpTalk(showError, most) {
  find('speech').hidden = false
  find('temperature').parentElement.hidden = true
  for (const name of SLIDERS) {
    const slider = find(`slide-${name}`)
    const show = () => {
      slider.previousElementSibling.textContent = name === 'top-k' && slider.value === '0' ? 'all' : slider.value
    }
    slider.oninput = show
    show()
  }
  find('voice').onclick = () => find('voice-file').click()
  find('voice-file').onchange = async () => {
    const [file] = find('voice-file').files
    find('voice-file').value = ''
    if (file) await setVoice(file, showError, most)
  }
}

async function setVoice(file, showError, most) {
  showError()
  try {
    const { samples, sent } = await readAudio(file, most)
    if (samples.length === 0) throw new Error(`${file.name} is empty.`)
    for (const item of [...find('voice-clip').children]) item.discard()
    voice = makeClip(file.name, samples, sent)
    const forget = () => {
      voice = undefined
      find('voice').hidden = false
    }
    find('voice-clip').append(clipItem(voice, forget))
    find('voice').hidden = true
  } catch (error) {
    showError(error.message)
  }
}

/** Return the request's fields for a spoken answer. */
export async function talkSettings() {
  const [temperature, top_p, top_k, steps] = SLIDERS.map((name) => find(`slide-${name}`).valueAsNumber)
  if (voice) voice.base64 ??= await toBase64(voice.blob)
  const reference = voice && { data: voice.base64, format: voice.format }
  return {
    modalities: ['text', 'audio'],
    audio: { format: 'pcm16', steps, ...(reference && { reference }) },
    ...{ temperature, top_p, top_k },
  }
}

/**
 * Set up a push-to-talk button: `begin` on press, `end` on release after a hold or on the next click.
 * @param {HTMLButtonElement} button
 * @param {{ isOn: () => boolean, begin: () => Promise<void>, end: () => Promise<void> }} actions
 */
export function holdOrClick(button, { isOn, begin, end }) {
  let pressed
  let began
  let skipsClick = false
  button.onpointerdown = (event) => {
    if (isOn() || event.button !== 0) return
    button.setPointerCapture(event.pointerId)
    pressed = performance.now()
    skipsClick = true
    began = begin()
  }
  button.onpointerup = button.onpointercancel = async () => {
    if (pressed === undefined) return
    const isHeld = performance.now() - pressed > HOLD
    pressed = undefined
    await began
    if (isHeld && isOn()) await end()
  }
  button.onclick = async ({ detail }) => {
    // Skip the click event of a pointer press; a click from the keyboard has no press.
    if (skipsClick && detail > 0) {
      skipsClick = false
      return
    }
    skipsClick = false
    await (isOn() ? end() : begin())
  }
}
