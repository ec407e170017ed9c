// The answer as sound: pieces are played one after the other as they come.

/** So late begins the first piece, in seconds: the next may take a moment. */
const LEAD = 0.1

let context

/** 16-bit PCM in base64, as samples. */
export function fromPcm(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 32768)
}

/**
 * A queue of pieces.
 * @param {() => void} onChange is called when it begins, and when all that it has was played or it was stopped
 */
export function makePlayer(onChange) {
  const sources = new Set()
  let next = 0
  let isStopped = false
  const player = {
    get isPlaying() {
      return sources.size > 0
    },
    /** Seconds that were given to it. */
    seconds: 0,
    push(samples, sampleRate) {
      player.seconds += samples.length / sampleRate
      if (isStopped || samples.length === 0) return
      context ??= new AudioContext()
      // Not allowed before the user has touched the page: it is heard from then on.
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
