import { requireString } from '../../../base/check.js'
import { escaped } from '../../../base/words.js'
import { round, shortened, svg } from '../../../kit/figure.js'
import {
  checkTrajectory,
  type EmotionalTrajectory,
  speakersOf,
  type TrajectoryTurn,
  trajectoryText,
} from './trajectory-report.js'

const [LEFT, TOP, ROW, RIGHT, AXIS, LEGEND] = [100, 34, 36, 16, 52, 28]
/** Preferred width of the figure, and minimum and maximum width of a turn, in pixels. */
const [WIDTH, LEAST_STEP, MOST_STEP] = [400, 52, 110]
/** Vertical order of the challenge's emotions, positive ones on top; others follow in order of occurrence. */
const ORDER = ['surprise', 'happy', 'neutral', 'sad', 'fear', 'disgust', 'anger']
const COLOURS = ['#0f6b66', '#b3541e', '#5b4b9a', '#8a6d00', '#a02c5a', '#3567a8']
const DARK = ['#4fc0b7', '#f0975f', '#a99bf0', '#d9b93f', '#ef83ab', '#86b4f2']
const DASHES = ['', '8 4', '2 4', '10 4 2 4', '14 3', '5 2']

/**
 * Draw each speaker's emotion over the turns as a self-contained SVG. Speakers differ in color, marker shape and line style. A ring marks
 * the reference where the prediction is wrong. Colors follow the reader's light or dark mode.
 */
export function trajectorySvg(trajectory: EmotionalTrajectory, title = 'Emotional trajectory'): string {
  checkTrajectory('trajectorySvg', trajectory)
  requireString('trajectorySvg', 'title', title)
  return drawTrajectory(trajectory, title).svg
}

/** @internal */
export function drawTrajectory(trajectory: EmotionalTrajectory, title: string): { svg: string; width: number } {
  const { turns } = trajectory
  const emotions = emotionsOf(turns)
  const speakers = speakersOf(turns)
  const step = Math.min(MOST_STEP, Math.max(LEAST_STEP, (WIDTH - LEFT - RIGHT) / turns.length))
  const width = Math.max(WIDTH, Math.round(LEFT + step * turns.length + RIGHT))
  const hasMisses = turns.some(isWrong)
  const rows = legendRows([...speakers, ...(hasMisses ? [null] : [])], width)
  const bottom = TOP + ROW * emotions.length
  const height = bottom + AXIS + LEGEND * rows.length
  const x = (turn: number) => round(LEFT + step * (turn + 0.5))
  const y = (emotion: string) => TOP + ROW * (emotions.indexOf(emotion) + 0.5)
  const grid = emotions.map(
    (emotion) =>
      `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(emotion)}" y2="${y(emotion)}"/><text class="emotion" x="${LEFT - 10}" y="${y(emotion) + 5}" text-anchor="end">${escaped(shortened(emotion, 11))}</text>`,
  )
  const timed = turns.every(({ start }) => start !== undefined)
  const axis = turns.map(
    ({ start }, i) =>
      `<text class="axis" x="${x(i)}" y="${bottom + 18}" text-anchor="middle">${timed ? `${start?.toFixed(1)} s` : i + 1}</text>`,
  )
  const names = [
    `<text class="axis label" x="${LEFT - 10}" y="18" text-anchor="end">Emotion</text>`,
    `<text class="axis label" x="${(LEFT + width - RIGHT) / 2}" y="${bottom + 38}" text-anchor="middle">${timed ? 'Turn begins at' : 'Turn'}</text>`,
  ]
  // Shift the lines of speakers, so that equal emotions do not hide each other.
  const apart = Math.min(6, (0.5 * ROW) / speakers.length)
  const paths = speakers.map((speaker, s) => {
    const own = turns.flatMap((turn, i) => (turn.speaker === speaker ? [{ ...turn, at: x(i) }] : []))
    const level = (emotion: string) => round(y(emotion) + apart * (s - (speakers.length - 1) / 2))
    const line = own.map(({ at, emotion }) => `${at} ${level(emotion)}`).join('L')
    const points = own.map(({ at, ...turn }) => point(turn, at, level, s)).join('')
    return `<g class="${classOf(s)}"><path class="line" d="M${line}"${dash(s)}/>${points}</g>`
  })
  const legend = rows.flatMap((row, r) =>
    row.map(({ speaker, name, index, left }) => {
      const top = bottom + AXIS + LEGEND * r + 10
      const words = `<text class="name" x="${left + 42}" y="${top + 5}">${escaped(name)}</text>`
      if (speaker === null) return `<g><circle class="truth" cx="${left + 16}" cy="${top}" r="8"/>${words}</g>`
      return `<g class="${classOf(index)}"><path class="line" d="M${left} ${top}h32"${dash(index)}/>${mark(index, left + 16, top)}${words}</g>`
    }),
  )
  const description = trajectoryText({ turns }).replaceAll('\n', '. ')
  const parts = [
    `<rect class="sheet" width="${width}" height="${height}"/>`,
    ...[...grid, ...names, ...axis, ...paths, ...legend],
  ]
  const image = svg({
    ...{ name: 'trajectory', title, description, width, height, scale: 1.5, style: STYLE, parts },
    colours: {
      light: `--line:#dad7cf;--sheet:#fff;${colours(COLOURS)}`,
      dark: `--line:#39424d;--sheet:#1c2229;${colours(DARK)}`,
    },
  })
  return { svg: image, width }
}

function emotionsOf(turns: readonly TrajectoryTurn[]): string[] {
  const seen = new Set(turns.flatMap(({ emotion, reference }) => [emotion, ...(reference ? [reference] : [])]))
  return [...ORDER.filter((emotion) => seen.has(emotion)), ...[...seen].filter((emotion) => !ORDER.includes(emotion))]
}

/** @internal */
export const isWrong = ({ reference, emotion }: TrajectoryTurn): boolean =>
  reference !== undefined && reference !== '' && reference !== emotion

function point(turn: TrajectoryTurn, at: number, y: (emotion: string) => number, speaker: number): string {
  const { emotion, reference = '', text } = turn
  const wrong = isWrong(turn)
  const tip = `${turn.speaker}: ${emotion}${wrong ? `, reference ${reference}` : ''}${text ? `. ${text}` : ''}`
  const ring = wrong
    ? `<path class="miss" d="M${at} ${y(emotion)}V${y(reference)}"/><circle class="truth" cx="${at}" cy="${y(reference)}" r="8"/>`
    : ''
  return `<g class="turn" data-emotion="${escaped(emotion)}"><title>${escaped(tip)}</title>${ring}${mark(speaker, at, y(emotion))}</g>`
}

/** Draw a speaker's marker; all shapes have about the same area. */
function mark(speaker: number, x: number, y: number): string {
  const forms = [
    `<circle class="point" cx="${x}" cy="${y}" r="6.5"/>`,
    `<path class="point" d="M${x - 6} ${y - 6}h12v12h-12z"/>`,
    `<path class="point" d="M${x} ${y - 8.5}l8.5 8.5l-8.5 8.5l-8.5 -8.5z"/>`,
    `<path class="point" d="M${x} ${y - 8}l8 14h-16z"/>`,
    `<path class="point" d="M${x} ${y + 8}l8 -14h-16z"/>`,
    `<path class="point" d="M${x - 3} ${y - 8}h6v5h5v6h-5v5h-6v-5h-5v-6h5z"/>`,
  ]
  return forms[speaker % forms.length] as string
}

/** Shift colors and line styles when marker shapes repeat. */
const shifted = (speaker: number) => (speaker + Math.floor(speaker / COLOURS.length)) % COLOURS.length

const classOf = (speaker: number) => `speaker s${shifted(speaker)}`

function dash(speaker: number): string {
  const pattern = DASHES[shifted(speaker)]
  return pattern ? ` stroke-dasharray="${pattern}"` : ''
}

/** Lay out the legend in rows; null is the entry of the reference ring. */
function legendRows(speakers: readonly (string | null)[], width: number) {
  const rows: { speaker: string | null; name: string; index: number; left: number }[][] = [[]]
  let left = 16
  for (const [index, speaker] of speakers.entries()) {
    const name = speaker === null ? 'reference' : shortened(speaker, 24)
    const room = 62 + [...name].reduce((sum, character) => sum + (character > '\u2e7f' ? 15 : 8.5), 0)
    if (left + room > width && left > 16) {
      rows.push([])
      left = 16
    }
    rows.at(-1)?.push({ speaker, name, index, left: round(left) })
    left += room
  }
  return rows
}

const colours = (list: readonly string[]) => list.map((colour, i) => `--s${i}:${colour}`).join(';')

const STYLE = `
.trajectory{max-width:100%;height:auto}.trajectory .sheet{fill:var(--sheet)}
.trajectory .axis{font-size:13px;fill:var(--soft)}.trajectory .label{font-weight:600}.trajectory .grid{stroke:var(--line)}
.trajectory .line{fill:none;stroke-width:2.5;stroke-linejoin:round}.trajectory .point{stroke:var(--sheet);stroke-width:1.5}
.trajectory .truth{fill:none;stroke:var(--soft);stroke-width:2}.trajectory .miss{fill:none;stroke-width:1.5;stroke-dasharray:1 4;stroke-linecap:round}
${COLOURS.map((_, i) => `.trajectory .s${i} .line,.trajectory .s${i} .miss,.trajectory .s${i} .truth{stroke:var(--s${i})}.trajectory .s${i} .point{fill:var(--s${i})}`).join('\n')}`
