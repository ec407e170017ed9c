// What models that speak have more: a button to hold or to click, sliders, and a clip whose voice is taken.

import { clipItem, makeClip } from './clip.js'
import { readSound, toBase64 } from './sound.js'

const find = (id) => document.getElementById(id)
const SLIDERS = ['temperature', 'top-p', 'top-k', 'steps']

/** Pressed for longer it is held, and else clicked; in milliseconds. */
const HOLD = 400

let voice

/** Shows what is there for it. @param {(message?: string) => void} showError @param {number} most bytes of a clip */
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
    if (file) await takeVoice(file, showError, most)
  }
}

async function takeVoice(file, showError, most) {
  showError()
  try {
    const { samples, sent } = await readSound(file, most)
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

/** What of a request is about speech. */
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
 * A button that begins when it is pressed, and ends when it is let go after a while, or clicked again.
 * @param {HTMLButtonElement} button
 * @param {{ isOn: () => boolean, begin: () => Promise<void>, end: () => Promise<void> }} what
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
    // The click that belongs to the press; one of the keyboard has no press.
    if (skipsClick && detail > 0) {
      skipsClick = false
      return
    }
    skipsClick = false
    await (isOn() ? end() : begin())
  }
}
