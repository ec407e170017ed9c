import { escaped } from '../../../base/words.js'
import { round, shortened, svg } from '../../../kit/figure.js'
import type { LabeledDialog } from './label.js'

/** Media of one utterance in a page. */
export interface StripMedia {
  /** `data:` URL of a small image. */
  thumbnail?: string
  /** URL of the audio, usually `data:`. */
  audio?: string
}

const [LEFT, TOP, ROW, STEP, RIGHT] = [96, 64, 58, 84, 12]
const THUMBNAIL = 44
/** Minimum probability for the full color; below it a cell is tinted. */
const SURE = 0.6
/** Light and dark colors of the seven emotions of ECF and MELD; other labels use `OTHERS`. Cells show the label as text too. */
export const COLOURS: Record<string, [light: string, dark: string]> = {
  ...{ surprise: ['#8a5a00', '#e8b545'], fear: ['#5b4b9a', '#a99bf0'], sadness: ['#3567a8', '#86b4f2'] },
  ...{ neutral: ['#6b7480', '#9aa4b0'], joy: ['#2f7d4f', '#6cc48f'], anger: ['#b3311e', '#f2806c'] },
  ...{ disgust: ['#5c6610', '#b9c060'] },
}
const OTHERS: [string, string][] = [
  ['#0f6b66', '#4fc0b7'],
  ['#a02c5a', '#ef83ab'],
  ['#4a6b00', '#a5cf4f'],
]

export const colourOf = (label: string, labels: readonly string[]): [string, string] =>
  COLOURS[label] ?? (OTHERS[Math.max(0, labels.indexOf(label)) % OTHERS.length] as [string, string])

/**
 * Draw a dialog as SVG, from left to right with one row per speaker: the predicted emotion of each utterance, the true emotion in
 * a ring if it differs, and an arrow from each cause to its effect. In a page of `emotionReport`, utterances with audio can be
 * clicked.
 */
export function emotionStrip(
  { dialog, labels, utterances, causes = [] }: LabeledDialog,
  media: readonly StripMedia[] = [],
): string {
  const speakers = [...new Set(dialog.utterances.map(({ speaker }) => speaker))]
  const arrows = causes.length === 0 ? 0 : 46
  const thumbnailHeight = media.some(({ thumbnail }) => thumbnail !== undefined) ? THUMBNAIL + 6 : 0
  const row = ROW + thumbnailHeight
  const width = LEFT + STEP * utterances.length + RIGHT
  const top = TOP - 40 + arrows
  const height = top + row * speakers.length + 24
  const x = (place: number) => LEFT + STEP * (place + 0.5)
  /** Vertical center of a speaker's cells, below the thumbnails. */
  const level = (speaker: number) => top + row * (speaker + 0.5) + thumbnailHeight / 2
  const y = (place: number) => level(speakers.indexOf(dialog.utterances[place]?.speaker ?? ''))
  /** Top edge of an utterance with its thumbnail. */
  const roof = (place: number) => y(place) - (media[place]?.thumbnail === undefined ? 16 : THUMBNAIL + 22)
  const lines = speakers.map((speaker, i) => {
    const at = level(i)
    const name = `<text x="${LEFT - 10}" y="${at + 5}" text-anchor="end">${escaped(shortened(speaker || 'unknown', 11))}</text>`
    return `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${at}" y2="${at}"/>${name}`
  })
  const cells = utterances.map(({ emotion, probabilities }, place) => {
    const { text, emotion: truth, clip, id } = dialog.utterances[place] as LabeledDialog['dialog']['utterances'][number]
    const wrong = truth !== undefined && truth !== emotion
    const most = Math.max(...probabilities)
    const sure = Math.round(100 * most)
    const isSure = most >= SURE
    const tip = `${id}. ${text} — ${emotion}, ${sure} %${wrong ? `, true: ${truth}` : ''}`
    const { thumbnail, audio } = media[place] ?? {}
    const [cx, cy] = [x(place), y(place)]
    const image =
      thumbnail === undefined
        ? ''
        : `<image href="${escaped(thumbnail)}" x="${cx - THUMBNAIL / 2 - 8}" y="${cy - THUMBNAIL - 20}" width="${THUMBNAIL + 16}" height="${THUMBNAIL}" preserveAspectRatio="xMidYMid meet"/>`
    const ring = wrong
      ? `<rect class="ring c${labels.indexOf(truth)}" x="${cx - 40}" y="${cy - 18}" width="80" height="36" rx="9"/><text class="truth" x="${cx}" y="${cy + 30}" text-anchor="middle">${escaped(shortened(truth, 10))}</text>`
      : ''
    const when = clip?.start === undefined ? '' : ` data-start="${clip.start}" data-end="${clip.end}"`
    const field = `x="${cx - 36}" y="${cy - 14}" width="72" height="28" rx="6"`
    const playback =
      audio === undefined
        ? ''
        : ` data-audio="${escaped(audio)}" tabindex="0" role="button" aria-label="${escaped(`play: ${text}`)}"`
    return `<g class="say c${labels.indexOf(emotion)}"${playback}${when}><title>${escaped(tip)}</title>${image}${ring}<rect class="under" ${field}/><rect class="felt" ${field} fill-opacity="${(isSure ? 0.5 + 0.5 * most : 0.16 + 0.3 * most).toFixed(2)}"/><text class="word${isSure ? '' : ' unsure'}" x="${cx}" y="${cy + 5}" text-anchor="middle">${escaped(shortened(emotion, 9))}</text></g>`
  })
  const paths = causes.map(({ effect, cause }) => {
    const from = x(cause) + (cause < effect ? 10 : cause > effect ? -10 : -14)
    const to = x(effect) + (cause < effect ? -10 : cause > effect ? 10 : 14)
    const [a, b] = [roof(cause), roof(effect)]
    const lift = Math.min(a, b) - Math.min(20 + 9 * Math.abs(effect - cause), arrows + row / 3)
    return `<path class="cause" marker-end="url(#arrow)" d="M${round(from)} ${round(a)}C${round(from)} ${round(lift)} ${round(to)} ${round(lift)} ${round(to)} ${round(b)}"/>`
  })
  const numbers = utterances.map(
    (_, place) =>
      `<text class="number" x="${x(place)}" y="${height - 6}" text-anchor="middle">${dialog.utterances[place]?.id}</text>`,
  )
  const colours = (dark: 0 | 1) => labels.map((label, i) => `--c${i}:${colourOf(label, labels)[dark]}`).join(';')
  const classes = labels
    .map((_, i) => `.strip .c${i} .felt{fill:var(--c${i})}.strip .ring.c${i}{stroke:var(--c${i})}`)
    .join('')
  const described = utterances.map(({ emotion }, i) => `${dialog.utterances[i]?.id}: ${emotion}`).join(', ')
  return svg({
    ...{ name: 'strip', title: `Dialog ${dialog.id}`, description: described, width, height, scale: 1 },
    colours: {
      light: `--line:#dad7cf;--word:#fff;${colours(0)}`,
      dark: `--line:#39424d;--word:#12161b;${colours(1)}`,
    },
    style: `${classes}.strip .grid{stroke:var(--line)}.strip .under{fill:var(--sheet,Canvas)}.strip .word{fill:var(--word);font-size:13px;font-weight:600}.strip .word.unsure{fill:var(--ink)}.strip .truth,.strip .number{font-size:11px;fill:var(--soft)}
.strip .ring{fill:none;stroke-width:2;stroke-dasharray:4 3}.strip .cause{fill:none;stroke:var(--soft);stroke-width:1.5}.strip .head{fill:var(--soft)}
.strip [data-audio]{cursor:pointer}.strip [data-audio]:focus-visible .felt,.strip .playing .felt{stroke:var(--ink);stroke-width:3}`,
    parts: [
      '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
      ...[...lines, ...cells, ...paths, ...numbers],
    ],
  })
}
