import { SPEECH_RATE } from '../../../audio/clip.js'
import { misuse, requireNumber, requireObject, requireString } from '../../../base/check.js'
import type { WordAlignment } from './align.js'

/** A clip and its words, as they are drawn. */
export interface AlignmentPicture {
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
/** Longer clips go on in another line. */
const SECONDS_IN_LINE = 6
/** Room that a letter takes, about. */
const LETTER = 7.4

/**
 * A waveform with its words below it, as one SVG that stands alone. Words lie in two rows where they would touch; the less
 * confident a word is, the paler is its bar. Colours follow the reader's light or dark setting.
 */
export function alignmentSvg(picture: AlignmentPicture): string {
  const { audio, words, duration, rate, title } = checked('alignmentSvg', picture)
  const lines = Math.max(1, Math.ceil(duration / SECONDS_IN_LINE - 1e-9))
  const seconds = lines === 1 ? duration : SECONDS_IN_LINE
  const highest = audio.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1
  const parts = Array.from({ length: lines }, (_, line) => {
    const from = line * seconds
    const x = (time: number) => LEFT + ((WIDTH - 2 * LEFT) * (time - from)) / seconds
    const to = Math.min(duration, from + seconds)
    const own = words.filter(({ start, end }) => start < to && (end > from || (end === start && start >= from)))
    return `<g transform="translate(0 ${line * HEIGHT})">
<path class="wave" d="${envelope(audio, rate, from, seconds, highest)}"/>${drawn(own, x, from, to)}
${axis(from, to, x)}</g>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" class="alignment" viewBox="0 0 ${WIDTH} ${lines * HEIGHT}" role="img" aria-label="${escaped(title)}">
<title>${escaped(title)}</title><style>${SVG_STYLE}</style>
${parts.join('\n')}
</svg>
`
}

/** The same as a page that needs no network, with a table of the words. */
export function alignmentPage(picture: AlignmentPicture): string {
  const { words, duration, title } = checked('alignmentPage', picture)
  const rows = words.map(
    ({ word, start, end, confidence }) =>
      `<tr><th scope="row">${escaped(word)}</th><td>${start.toFixed(2)}</td><td>${end.toFixed(2)}</td><td>${confidence.toFixed(2)}</td></tr>`,
  )
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title><style>${PAGE_STYLE}</style></head><body><main>
<h1>${escaped(title)}</h1>
<p class="lead">${words.length} word${words.length === 1 ? '' : 's'} in ${duration.toFixed(2)} s. The paler a bar, the less the model agrees with itself.</p>
<figure>${alignmentSvg(picture)}</figure>
<div class="wide"><table><thead><tr><th scope="col">Word</th><th scope="col">Start (s)</th><th scope="col">End (s)</th><th scope="col">Confidence</th></tr></thead>
<tbody>${rows.join('')}</tbody></table></div>
</main></body></html>
`
}

function checked(where: string, picture: AlignmentPicture) {
  requireObject(where, 'picture', picture)
  const { audio, alignment, sampleRate = SPEECH_RATE, title = 'Word alignment' } = picture
  if (!(audio instanceof Float32Array)) throw misuse(where, 'audio', 'a Float32Array of samples', audio)
  requireNumber(where, 'sampleRate', sampleRate, { least: 1 })
  requireString(where, 'title', title)
  const words: unknown = (alignment as Partial<WordAlignment> | null | undefined)?.words
  if (!Array.isArray(words)) throw misuse(where, 'alignment', 'what alignWords() gives', alignment)
  for (const [i, word] of words.entries()) {
    requireString(where, `words[${i}].word`, word?.word)
    for (const key of ['start', 'end', 'confidence'])
      requireNumber(where, `words[${i}].${key}`, word[key], { least: 0 })
  }
  const { words: list } = alignment
  return { audio, words: list, duration: Math.max(audio.length / sampleRate, 0.01), rate: sampleRate, title }
}

/** The outline of a line's samples, as highest and lowest of each step of the picture. */
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

/** Words of one line: a bar from start to end over the wave, and the word below in the first row where it has room. */
function drawn(words: WordAlignment['words'], x: (time: number) => number, from: number, to: number): string {
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
      // What goes on from the line before is named there.
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

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] as string)

const SVG_STYLE = `
.alignment{color-scheme:light dark;--ink:#1d2733;--soft:#5a6472;--line:#c9c5bb;--wave:#9aa6b5;--word:#0f6b66}
@media (prefers-color-scheme:dark){.alignment{--ink:#e8e6e1;--soft:#9fa8b4;--line:#4a5462;--wave:#66748a;--word:#4fc0b7}}
.alignment text{font:14px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:var(--ink)}
.alignment .axis{font-size:12px;fill:var(--soft)}
.alignment .tick{stroke:var(--line)}.alignment .wave{fill:var(--wave)}
.alignment .span,.alignment .bar{fill:var(--word)}.alignment .word:hover .span{fill-opacity:.35}`

const PAGE_STYLE = `
:root{color-scheme:light dark;--paper:#f6f5f2;--sheet:#fff;--ink:#1d2733;--soft:#5a6472;--rule:#e5e3dd}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--sheet:#1c2229;--ink:#e8e6e1;--soft:#9fa8b4;--rule:#2f3842}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1008px;margin:0 auto;padding:48px 24px 72px}h1{font-size:32px;line-height:1.2;margin:0 0 12px;overflow-wrap:anywhere}
.lead{font-size:18px;color:var(--soft);margin:0 0 16px}figure{margin:0 0 24px;background:var(--sheet);padding:16px}
svg{width:100%;height:auto;display:block}table{border-collapse:collapse;width:100%;background:var(--sheet);font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;border-bottom:1px solid var(--rule)}th{font-weight:500;color:var(--soft)}
tbody th{color:var(--ink)}th:first-child{text-align:left;overflow-wrap:anywhere}.wide{overflow:auto;max-height:480px}`
