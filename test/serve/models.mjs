// Chat models for the tests: they listen in the simplest way, so that an answer proves what reached them.
// Plain JavaScript: child processes run it as it is.

/** @import { ChatModel, ChatTurn, ChatAnswerOptions, ChatDelta } from '../../lib/serve/index.js' */

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

/** @import { RawImage } from '../../lib/index.js' */

/**
 * A parrot with eyes: says the size and the mean colour of each picture, and of each film how many frames it has. It has two
 * tasks, of which one has labels.
 */
export class Watcher extends Parrot {
  name = 'watcher'
  inputModalities = /** @type {const} */ (['text', 'image', 'video'])
  extras = /** @type {const} */ (['label_scores', 'views'])
  tasks = [
    { id: 'mood', title: 'Mood', hint: 'Which mood it is.' },
    { id: 'why', title: 'Reason', hint: 'Why that is so.' },
  ]

  /**
   * @param {ChatTurn[]} turns
   * @param {ChatAnswerOptions} options
   * @returns {AsyncGenerator<ChatDelta>}
   */
  async *stream(turns, options) {
    const last = /** @type {ChatTurn} */ (turns.at(-1))
    const text = last.content.map((part) => (part.type === 'text' ? part.text : '')).join('')
    if (options.task) yield { text: '', tokens: 0, asked: `${options.task} of "${text}"?` }
    if (options.views) {
      const views = last.content.flatMap((part) => {
        if (part.type === 'image') return [view('image', [part.image, part.image, part.image], [2, 1], null)]
        if (part.type !== 'video' || !Array.isArray(part.frames)) return []
        const { frames } = part
        const places = Array.from({ length: 8 }, (_, i) => Math.floor((i * frames.length) / 8))
        return [view('video', places.map((place) => frames[place]), null, places)] // biome-ignore format: one line
      })
      yield { text: '', tokens: 0, views }
    }
    const labels = options.labels ?? (options.task === 'mood' ? ['Joy.', 'Fear.', 'Neutral.'] : undefined)
    if (labels) {
      const total = (labels.length * (labels.length + 1)) / 2
      yield { text: '', tokens: 0, labelScores: Object.fromEntries(labels.map((label, i) => [label, (i + 1) / total])) }
    }
    yield* super.stream(turns, options)
  }

  /** @param {ChatTurn[]} turns @returns {string[]} */
  words(turns) {
    const [said] = super.words(turns).join('').split(' | ')
    if (/^\d/.test(said ?? '')) return super.words(turns)
    const seen = turns.flatMap(({ content }) =>
      content.flatMap((part) => {
        if (part.type === 'image') return [`${part.image.width} × ${part.image.height} in ${meanOf(part.image)}`]
        if (part.type !== 'video') return []
        return [
          `film of ${Array.isArray(part.frames) ? part.frames.length : /** @type {any} */ (part.frames).frameCount}`,
        ]
      }),
    )
    return `${said} | ${seen.join(', ') || 'nothing to see'}`.split(/(?<= )/)
  }
}

/** @param {RawImage} image */
function meanOf({ data, width, height }) {
  const sums = [0, 0, 0]
  for (let i = 0; i < data.length; i++)
    sums[i % 3] = /** @type {number} */ (sums[i % 3]) + /** @type {number} */ (data[i])
  return sums.map((sum) => Math.round(sum / (width * height))).join(' ')
}

/**
 * @param {'image' | 'video'} kind @param {RawImage[]} pictures @param {[number, number] | null} grid @param {number[] | null} frames
 * @returns {import('../../lib/serve/index.js').ChatView}
 */
function view(kind, pictures, grid, frames) {
  const side = 16
  const pixels = new Uint8Array(pictures.length * side * side * 3)
  pictures.forEach(({ data, width, height }, n) => {
    for (let i = 0; i < side * side; i++) {
      const from =
        3 * (Math.floor((Math.floor(i / side) * height) / side) * width + Math.floor(((i % side) * width) / side))
      for (let c = 0; c < 3; c++) pixels[3 * (n * side * side + i) + c] = /** @type {number} */ (data[from + c])
    }
  })
  return { kind, pixels, tiles: pictures.length, side, grid, frames }
}

/** A face of drawn pixels on a ground of one colour, as a PPM file. */
export function facePpm({ width = 160, height = 120, ground = [40, 90, 160], smile = 1 } = {}) {
  const pixels = Buffer.alloc(3 * width * height)
  const size = Math.min(width, height)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [dx, dy] = [(x - width / 2) / size, (y - height / 2) / size]
      const inFace = dx * dx + dy * dy < 0.16
      const eye = (Math.abs(dx) - 0.15) ** 2 + (dy + 0.1) ** 2 < 0.0015
      const mouth = Math.abs(dx) < 0.2 && Math.abs(dy - 0.18 + smile * (dx * dx * 2 - 0.04)) < 0.02
      pixels.set(eye || mouth ? [20, 20, 30] : inFace ? [250, 210, 150] : ground, 3 * (y * width + x))
    }
  }
  return Buffer.concat([Buffer.from(`P6 ${width} ${height} 255\n`), pixels])
}
