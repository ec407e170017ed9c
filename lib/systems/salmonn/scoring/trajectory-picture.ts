import { requireString } from '../../../data/check.js'
import { checkTrajectory, type EmotionalTrajectory, speakersOf, type TrajectoryTurn } from './trajectory-report.js'

const [LEFT, TOP, ROW, STEP, RIGHT, AXIS, LEGEND] = [116, 16, 40, 96, 40, 44, 30]
/** The emotions of the challenge, pleasant ones above; others follow in the order in which they occur. */
const ORDER = ['surprise', 'happy', 'neutral', 'sad', 'fear', 'disgust', 'anger']
const COLOURS = ['#0f6b66', '#b3541e', '#5b4b9a', '#8a6d00', '#a02c5a', '#3567a8']
const DARK = ['#4fc0b7', '#f0975f', '#a99bf0', '#d9b93f', '#ef83ab', '#86b4f2']

/**
 * Each speaker's emotion over the turns, as one SVG that stands alone. A ring marks what would have been right where the
 * model was wrong. Colours follow the reader's light or dark setting.
 */
export function trajectorySvg(trajectory: EmotionalTrajectory, title = 'Emotional trajectory'): string {
  const { turns } = checkTrajectory('trajectorySvg', trajectory)
  requireString('trajectorySvg', 'title', title)
  const emotions = emotionsOf(turns)
  const speakers = speakersOf(turns)
  const width = Math.max(520, LEFT + STEP * turns.length + RIGHT)
  const rows = legendRows(speakers, width)
  const height = TOP + ROW * emotions.length + AXIS + LEGEND * rows.length
  const x = (turn: number) => LEFT + STEP * (turn + 0.5)
  const y = (emotion: string) => TOP + ROW * (emotions.indexOf(emotion) + 0.5)
  const grid = emotions.map(
    (emotion) =>
      `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${y(emotion)}" y2="${y(emotion)}"/><text class="emotion" x="${LEFT - 14}" y="${y(emotion) + 5}" text-anchor="end">${escaped(shortened(emotion, 12))}</text>`,
  )
  const bottom = TOP + ROW * emotions.length
  const axis = turns.map(
    (turn, i) =>
      `<text class="axis" x="${x(i)}" y="${bottom + 20}" text-anchor="middle">${turn.start === undefined ? `turn ${i + 1}` : `${turn.start.toFixed(1)} s`}</text>`,
  )
  const paths = speakers.map((speaker, s) => {
    const own = turns.flatMap((turn, i) => (turn.speaker === speaker ? [{ ...turn, at: x(i) }] : []))
    const line = own.map(({ at, emotion }) => `${at} ${y(emotion)}`).join('L')
    const points = own.map(({ at, ...turn }) => point(turn, at, y)).join('')
    return `<g class="speaker s${s % COLOURS.length}"><path d="M${line}"/>${points}</g>`
  })
  const legend = rows.flatMap((row, r) =>
    row.map(({ speaker, index, left }) => {
      const top = bottom + AXIS + LEGEND * r + 6
      return `<g class="speaker s${index % COLOURS.length}"><circle cx="${left}" cy="${top}" r="6"/><text class="name" x="${left + 14}" y="${top + 5}">${escaped(speaker)}</text></g>`
    }),
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" class="trajectory" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}">
<title>${escaped(title)}</title><style>${SVG_STYLE}</style>
${[...grid, ...axis, ...paths, ...legend].join('\n')}
</svg>
`
}

/** The same as a page that needs no network, with the summary and a table of the turns. */
export function trajectoryPage(trajectory: EmotionalTrajectory, title = 'Emotional trajectory'): string {
  const { turns, summary } = checkTrajectory('trajectoryPage', trajectory)
  requireString('trajectoryPage', 'title', title)
  const judged = turns.filter(({ reference }) => reference !== undefined)
  const right = judged.filter(({ reference, emotion }) => reference === emotion).length
  const speakers = speakersOf(turns).length
  const lead = `${turns.length} turn${turns.length === 1 ? '' : 's'}, ${speakers} speaker${speakers === 1 ? '' : 's'}.${judged.length > 0 ? ` ${right} of ${judged.length} emotions are right; a ring marks what would have been.` : ''}`
  const head = ['Turn', 'Speaker', 'Emotion', ...(judged.length > 0 ? ['In truth'] : []), 'Words']
  const rows = turns.map(({ speaker, emotion, reference, text = '' }, i) => {
    const cells = [speaker, emotion, ...(judged.length > 0 ? [reference ?? ''] : []), text]
    const wrong = reference !== undefined && reference !== emotion
    return `<tr${wrong ? ' class="wrong"' : ''}><th scope="row">${i + 1}</th>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`
  })
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title><style>${PAGE_STYLE}</style></head><body><main>
<h1>${escaped(title)}</h1>
<p class="lead">${lead}</p>
<figure>${trajectorySvg(trajectory, title)}</figure>
${summary ? `<p class="summary">${escaped(summary).replaceAll('\n', '<br>')}</p>` : ''}
<div class="wide"><table><thead><tr>${head.map((name) => `<th scope="col">${name}</th>`).join('')}</tr></thead>
<tbody>${rows.join('')}</tbody></table></div>
</main></body></html>
`
}

function emotionsOf(turns: readonly TrajectoryTurn[]): string[] {
  const seen = new Set(turns.flatMap(({ emotion, reference }) => [emotion, ...(reference ? [reference] : [])]))
  return [...ORDER.filter((emotion) => seen.has(emotion)), ...[...seen].filter((emotion) => !ORDER.includes(emotion))]
}

function point(
  { speaker, emotion, reference, text }: TrajectoryTurn,
  at: number,
  y: (emotion: string) => number,
): string {
  const wrong = reference !== undefined && reference !== emotion
  const tip = `${speaker}: ${emotion}${wrong ? `, in truth ${reference}` : ''}${text ? `. ${text}` : ''}`
  const ring = wrong ? `<circle class="truth" cx="${at}" cy="${y(reference)}" r="8"/>` : ''
  return `<g class="turn"><title>${escaped(tip)}</title>${ring}<circle class="point" data-emotion="${escaped(emotion)}" cx="${at}" cy="${y(emotion)}" r="6"/></g>`
}

/** Names side by side as far as there is room. */
function legendRows(speakers: readonly string[], width: number) {
  const rows: { speaker: string; index: number; left: number }[][] = [[]]
  let left = LEFT
  for (const [index, name] of speakers.entries()) {
    const speaker = shortened(name, 24)
    const room = 40 + 9 * speaker.length
    if (left + room > width && left > LEFT) {
      rows.push([])
      left = LEFT
    }
    rows.at(-1)?.push({ speaker, index, left })
    left += room
  }
  return rows
}

const shortened = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] as string)

const colours = (list: readonly string[]) => list.map((colour, i) => `--s${i}:${colour}`).join(';')

const SVG_STYLE = `
.trajectory{color-scheme:light dark;--ink:#1d2733;--soft:#5a6472;--line:#dad7cf;--sheet:#fff;${colours(COLOURS)}}
@media (prefers-color-scheme:dark){.trajectory{--ink:#e8e6e1;--soft:#9fa8b4;--line:#39424d;--sheet:#1c2229;${colours(DARK)}}}
.trajectory text{font:14px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:var(--ink)}
.trajectory .axis{font-size:12px;fill:var(--soft)}.trajectory .grid{stroke:var(--line)}
.trajectory path{fill:none;stroke-width:2.5;stroke-linejoin:round}.trajectory .point{stroke:var(--sheet);stroke-width:2}
.trajectory .truth{fill:none;stroke-width:2;stroke-dasharray:3 3}
${COLOURS.map((_, i) => `.trajectory .s${i} path,.trajectory .s${i} .truth{stroke:var(--s${i})}.trajectory .s${i} circle:not(.truth){fill:var(--s${i})}`).join('\n')}`

const PAGE_STYLE = `
:root{color-scheme:light dark;--paper:#f6f5f2;--sheet:#fff;--ink:#1d2733;--soft:#5a6472;--rule:#e5e3dd;--warn:#a33a1f}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--sheet:#1c2229;--ink:#e8e6e1;--soft:#9fa8b4;--rule:#2f3842;--warn:#f0975f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1008px;margin:0 auto;padding:48px 24px 72px}h1{font-size:32px;line-height:1.2;margin:0 0 12px;overflow-wrap:anywhere}
.lead{font-size:18px;color:var(--soft);margin:0 0 16px}figure{margin:0 0 24px;background:var(--sheet);padding:16px}
svg{width:100%;height:auto;display:block}.summary{background:var(--sheet);padding:16px;margin:0 0 24px;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;background:var(--sheet);font-size:14px}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}th{font-weight:500;color:var(--soft)}
td:last-child{overflow-wrap:anywhere}.wrong td:nth-child(3){color:var(--warn)}.wide{overflow:auto}`
