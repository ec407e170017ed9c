import { SPEECH_RATE } from '../../../audio/clip.js'
import { argumentError, requireNumber, requireObject, requireString } from '../../../base/check.js'
import { escaped } from '../../../base/words.js'
import { counted, page, svg, table } from '../../../kit/figure.js'
import type { WordAlignment } from './align.js'

/** A clip and its words, for a figure. */
export interface AlignmentFigure {
  /** [samples] */
  audio: Float32Array
  alignment: Pick<WordAlignment, 'words'>
  /** Default 16000. */
  sampleRate?: number
  /** Default 'Word alignment'. */
  title?: string
}

const [WIDTH, LEFT, WAVE, WORDS, AXIS] = [960, 16, 92, 62, 30]
const HEIGHT = WAVE + WORDS + AXIS
/** Seconds per line of the figure. */
const SECONDS_IN_LINE = 6
/** Approximate width of a letter, in pixels. */
const LETTER = 7.4

/**
 * Return a waveform with its words below it, as one self-contained SVG. Words that would overlap are put on two rows. The opacity of a
 * word's bar is its confidence. Colors follow the reader's light or dark setting.
 */
export function alignmentSvg(figure: AlignmentFigure): string {
  const { audio, words, duration, rate, title } = checkedFigure('alignmentSvg', figure)
  const lines = Math.max(1, Math.ceil(duration / SECONDS_IN_LINE - 1e-9))
  const seconds = lines === 1 ? duration : SECONDS_IN_LINE
  const highest = audio.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1
  const parts = Array.from({ length: lines }, (_, line) => {
    const from = line * seconds
    const x = (time: number) => LEFT + ((WIDTH - 2 * LEFT) * (time - from)) / seconds
    const to = Math.min(duration, from + seconds)
    const lineWords = words.filter(({ start, end }) => start < to && (end > from || (end === start && start >= from)))
    return `<g transform="translate(0 ${line * HEIGHT})">
<path class="wave" d="${envelope(audio, rate, from, seconds, highest)}"/>${drawnWords(lineWords, x, from, to)}
${axis(from, to, x)}</g>`
  })
  return svg({
    ...{ name: 'alignment', title, width: WIDTH, height: lines * HEIGHT, style: STYLE, parts },
    colours: {
      light: '--line:#c9c5bb;--wave:#9aa6b5;--word:#0f6b66',
      dark: '--line:#4a5462;--wave:#66748a;--word:#4fc0b7',
    },
  })
}

/** Return the figure as a self-contained HTML page, with a table of the words. */
export function alignmentPage(figure: AlignmentFigure): string {
  const { words, duration, title } = checkedFigure('alignmentPage', figure)
  const rows = words.map(({ word, start, end, confidence }) => ({
    cells: [word, start.toFixed(2), end.toFixed(2), confidence.toFixed(2)],
  }))
  return page({
    title,
    lead: `${counted(words.length, 'word')} in ${duration.toFixed(2)} s. Paler bars have a lower confidence.`,
    parts: [`<figure>${alignmentSvg(figure)}</figure>`, table(['Word', 'Start (s)', 'End (s)', 'Confidence'], rows)],
    style: PAGE_STYLE,
  })
}

function checkedFigure(where: string, figure: AlignmentFigure) {
  requireObject(where, 'figure', figure)
  const { audio, alignment, sampleRate = SPEECH_RATE, title = 'Word alignment' } = figure
  if (!(audio instanceof Float32Array)) throw argumentError(where, 'audio', 'a Float32Array of samples', audio)
  requireNumber(where, 'sampleRate', sampleRate, { least: 1 })
  requireString(where, 'title', title)
  const words: unknown = (alignment as Partial<WordAlignment> | null | undefined)?.words
  if (!Array.isArray(words)) throw argumentError(where, 'alignment', 'a result of alignWords()', alignment)
  for (const [i, word] of words.entries()) {
    requireString(where, `words[${i}].word`, word?.word)
    for (const key of ['start', 'end', 'confidence'])
      requireNumber(where, `words[${i}].${key}`, word[key], { least: 0 })
  }
  const { words: list } = alignment
  return { audio, words: list, duration: Math.max(audio.length / sampleRate, 0.01), rate: sampleRate, title }
}

/** Return the outline of a line's samples as an SVG path: maximum and minimum of each horizontal pixel. */
function envelope(audio: Float32Array, rate: number, from: number, seconds: number, highest: number): string {
  const steps = WIDTH - 2 * LEFT
  const y = (value: number) => (WAVE / 2 - (value / highest) * (WAVE / 2 - 6)).toFixed(1)
  const [upper, lower]: [string[], string[]] = [[], []]
  for (let i = 0; i < steps; i++) {
    const begin = Math.floor((from + (i * seconds) / steps) * rate)
    const end = Math.max(begin + 1, Math.floor((from + ((i + 1) * seconds) / steps) * rate))
    if (begin >= audio.length) break
    let [low, high] = [0, 0]
    for (const value of audio.subarray(begin, end)) {
      if (value < low) low = value
      if (value > high) high = value
    }
    upper.push(`${LEFT + i} ${y(high)}`)
    lower.push(`${LEFT + i} ${y(low)}`)
  }
  return upper.length === 0 ? '' : `M${upper.join('L')}L${lower.reverse().join('L')}Z`
}

/** Return the words of one line: a bar from start to end over the waveform, and the word below, on the first row with space. */
function drawnWords(words: WordAlignment['words'], x: (time: number) => number, from: number, to: number): string {
  const ends = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]
  return words
    .map(({ word, start, end, confidence }) => {
      const [left, right] = [x(Math.max(start, from)), x(Math.min(end, to))]
      const width = Math.max(right - left, 1.5)
      const opacity = (0.15 + 0.85 * confidence).toFixed(2)
      const tip = `${word}: ${start.toFixed(2)} to ${end.toFixed(2)} s, confidence ${confidence.toFixed(2)}`
      const bars = `<title>${escaped(tip)}</title>
<rect class="span" x="${left.toFixed(1)}" y="4" width="${width.toFixed(1)}" height="${WAVE - 8}" rx="2" fill-opacity="${(0.16 * confidence).toFixed(3)}"/>
<rect class="bar" x="${left.toFixed(1)}" y="${WAVE}" width="${width.toFixed(1)}" height="5" rx="2" fill-opacity="${opacity}"/>`
      // A word that continues from the line before is labeled there.
      if (start < from) return `<g class="word">${bars}</g>`
      const half = (word.length * LETTER) / 2
      const middle = Math.min(Math.max(left + width / 2, LEFT + half), WIDTH - LEFT - half)
      const free = ends.findIndex((taken) => taken + 4 <= middle - half)
      const row = free < 0 ? ((ends[0] as number) <= (ends[1] as number) ? 0 : 1) : free
      ends[row] = middle + half
      return `<g class="word">${bars}
<text data-word="" x="${middle.toFixed(1)}" y="${WAVE + 24 + 22 * row}" text-anchor="middle">${escaped(word)}</text></g>`
    })
    .join('')
}

function axis(from: number, to: number, x: (time: number) => number): string {
  const step = [0.1, 0.2, 0.5, 1].find((size) => (to - from) / size <= 13) ?? 1
  const first = Math.ceil(from / step - 1e-9)
  const last = Math.floor(to / step + 1e-9)
  const y = WAVE + WORDS
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const time = Number(((first + i) * step).toPrecision(12))
    const at = x(time).toFixed(1)
    return `<line class="tick" x1="${at}" x2="${at}" y1="${y - 6}" y2="${y - 2}"/><text class="axis" x="${at}" y="${y + 12}" text-anchor="middle">${time} s</text>`
  }).join('')
}

const STYLE = `
.alignment .axis{font-size:12px;fill:var(--soft)}
.alignment .tick{stroke:var(--line)}.alignment .wave{fill:var(--wave)}
.alignment .span,.alignment .bar{fill:var(--word)}.alignment .word:hover .span{fill-opacity:.35}`

const PAGE_STYLE = `
table{font-variant-numeric:tabular-nums}th,td{text-align:right}th:first-child{text-align:left;overflow-wrap:anywhere}
tbody th{color:var(--ink)}.wide{max-height:480px}`
