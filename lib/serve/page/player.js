// Player of spoken answers: plays pieces of audio one after the other as they arrive.

/** Delay of the first piece, in seconds, to have a buffer for late pieces. */
const LEAD = 0.1

let context

/** Decode base64 of 16-bit PCM to samples. */
export function fromPcm(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 32768)
}

/**
 * Create a queue of audio pieces.
 * @param {() => void} onChange called when playback starts, finishes or is stopped
 */
export function makePlayer(onChange) {
  const sources = new Set()
  let next = 0
  let isStopped = false
  const player = {
    get isPlaying() {
      return sources.size > 0
    },
    /** Total duration of the pushed pieces, in seconds. */
    seconds: 0,
    push(samples, sampleRate) {
      player.seconds += samples.length / sampleRate
      if (isStopped || samples.length === 0) return
      context ??= new AudioContext()
      // Browsers allow playback only after the user's first interaction with the page.
      if (context.state === 'suspended') context.resume()
      const source = context.createBufferSource()
      source.buffer = context.createBuffer(1, samples.length, sampleRate)
      source.buffer.copyToChannel(samples, 0)
      source.connect(context.destination)
      const at = Math.max(context.currentTime + LEAD, next)
      next = at + source.buffer.duration
      sources.add(source)
      source.onended = () => {
        if (sources.delete(source) && sources.size === 0) onChange()
      }
      source.start(at)
      onChange()
    },
    stop() {
      isStopped = true
      for (const source of sources) {
        source.onended = null
        source.stop()
      }
      sources.clear()
      onChange()
    },
  }
  return player
}
