// Chat models for the tests: they listen in the simplest way, so that an answer proves what reached them.
// Plain JavaScript: child processes run it as it is.

/** @import { ChatModel, ChatTurn, ChatAnswerOptions, ChatDelta } from '../../lib/index.js' */

const wait = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Says how many turns and clips it got, how long each clip is and how loud, word by word; "count N" in the last message
 * makes it count to N, one number every `pause` ms.
 * @implements {ChatModel}
 */
export class Parrot {
  name = 'parrot'
  /** Generations that run now, that were begun, and tokens given in all. */
  running = 0
  begun = 0
  given = 0
  /** @type {ChatAnswerOptions | undefined} */
  options
  /** @type {ChatTurn[]} */
  turns = []

  /** @param {number} [pause] milliseconds before each word */
  constructor(pause = 0) {
    this.pause = pause
  }

  /**
   * @param {ChatTurn[]} turns
   * @param {ChatAnswerOptions} options
   * @returns {AsyncGenerator<ChatDelta>}
   */
  async *stream(turns, options) {
    this.options = options
    this.turns = turns
    this.begun += 1
    this.running += 1
    try {
      const words = this.words(turns)
      for (const word of words.slice(0, options.maxNewTokens)) {
        if (this.pause > 0) await wait(this.pause)
        if (options.signal.aborted) return
        this.given += 1
        yield { text: word, tokens: 1, promptTokens: 7 }
      }
    } finally {
      this.running -= 1
    }
  }

  /** @param {ChatTurn[]} turns @returns {string[]} */
  words(turns) {
    const last = /** @type {ChatTurn} */ (turns.at(-1))
    const text = last.content.map((part) => (part.type === 'text' ? part.text : '')).join(' ')
    const [, count] = /count (\d+)/.exec(text) ?? []
    if (count !== undefined) return Array.from({ length: Number(count) }, (_, i) => `${i + 1} `)
    const clips = turns.flatMap(({ content }) => content.flatMap((part) => (part.type === 'audio' ? [part] : [])))
    const heard = clips.map(({ seconds, samples }) => {
      const square = samples.reduce((sum, value) => sum + value * value, 0) / samples.length
      return `${seconds.toFixed(2)} s at ${Math.sqrt(square).toFixed(3)}`
    })
    return `Turn ${turns.length}: ${text.trim()} | ${heard.join(', ') || 'no sound'}`.split(/(?<= )/)
  }
}

/** A 440 Hz sine, 16-bit, as the bytes of a WAV file; `rising` begins with silence. */
export function sineWav({ seconds = 1, rate = 16_000, amplitude = 0.5, rising = false } = {}) {
  const frames = Math.round(seconds * rate)
  const bytes = Buffer.alloc(44 + 2 * frames)
  bytes.write('RIFF', 0, 'latin1')
  bytes.writeUInt32LE(36 + 2 * frames, 4)
  bytes.write('WAVEfmt ', 8, 'latin1')
  bytes.writeUInt32LE(16, 16)
  bytes.writeUInt16LE(1, 20)
  bytes.writeUInt16LE(1, 22)
  bytes.writeUInt32LE(rate, 24)
  bytes.writeUInt32LE(2 * rate, 28)
  bytes.writeUInt16LE(2, 32)
  bytes.writeUInt16LE(16, 34)
  bytes.write('data', 36, 'latin1')
  bytes.writeUInt32LE(2 * frames, 40)
  for (let i = 0; i < frames; i++) {
    const size = 32767 * amplitude * (rising ? i / frames : 1)
    bytes.writeInt16LE(Math.round(size * Math.sin((2 * Math.PI * 440 * i) / rate)), 44 + 2 * i)
  }
  return bytes
}
