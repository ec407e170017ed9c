import { requireForm } from '../../../base/form.js'
import { escaped } from '../../../base/words.js'
import { page, round, svg, table } from '../../../kit/figure.js'

/** A question with its answer. */
export interface SalmonnAnswerShown {
  id: string
  question: string
  /** Reference answer. */
  right: string
  /** Model's answer. */
  said: string
  /** Model's answer with the audio of another item. */
  otherwise?: string
  isRight: boolean
  /** Bytes of a WAV file, for playback in the page. */
  wav?: Uint8Array
}

export interface SalmonnAnswersReport {
  title: string
  lead: string
  /** Paragraphs of plain text. */
  notes?: readonly string[]
  /** Table of metrics, with names of rows and columns. */
  figures: { head: readonly string[]; rows: readonly (readonly string[])[] }
  /** Values by step, such as the losses of training and validation. */
  curves: readonly { name: string; points: readonly (readonly [step: number, value: number])[] }[]
  answers: readonly SalmonnAnswerShown[]
}

/**
 * Render the answers of a trained SALMONN as a self-contained HTML page: metrics, training curves, and audio clips with their questions,
 * reference answers and the model's answers.
 */
export function salmonnAnswersPage(report: SalmonnAnswersReport): string {
  requireForm('salmonnAnswersPage', 'report', report, {
    ...{ title: 'string', lead: 'string', 'notes?': ['string'] },
    figures: { head: ['string'], rows: [['string']] },
    curves: [{ name: 'string', points: [['number']] }],
    answers: [{ id: 'string', question: 'string', right: 'string', said: 'string', 'otherwise?': 'string' }],
  })
  const { title, lead, notes = [], figures, curves, answers } = report
  const parts = [
    '<h2>Figures</h2>',
    table(
      figures.head,
      figures.rows.map((cells) => ({ cells })),
    ),
    ...notes.map((note) => `<p>${escaped(note)}</p>`),
    '<h2>Training</h2>',
    `<figure>${curvesSvg(curves)}</figure>`,
    '<h2>Clips, questions and answers</h2>',
    ...answers.map(shown),
  ]
  return page({ title, lead, parts, style: STYLE })
}

function shown({ id, question, right, said, otherwise, isRight, wav }: SalmonnAnswerShown): string {
  const audio =
    wav &&
    `<audio controls preload="metadata" src="data:audio/wav;base64,${Buffer.from(wav).toString('base64')}"></audio>`
  const line = (name: string, text: string, kind = '') =>
    `<dt>${name}</dt><dd${kind && ` class="${kind}"`}>${text === '' ? '<i>nothing</i>' : escaped(text)}</dd>`
  const lines = [
    line('question', question),
    line('reference', right),
    line('answer', said, isRight ? 'good' : 'bad'),
    ...(otherwise === undefined ? [] : [line('answer with other audio', otherwise)]),
  ]
  return `<article><h3>${escaped(id)}</h3>${audio ?? ''}<dl>${lines.join('')}</dl></article>`
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [900, 300, 52, 150, 14, 40]

/** Draw curves over steps, with axis ticks at round numbers. */
function curvesSvg(curves: SalmonnAnswersReport['curves']): string {
  const all = curves.flatMap(({ points }) => points)
  const last = Math.max(1, ...all.map(([step]) => step))
  const highest = Math.max(1e-9, ...all.map(([, value]) => value))
  const tick = [0.1, 0.2, 0.5, 1, 2, 5].find((size) => highest / size <= 6) ?? highest / 4
  const most = Math.ceil(highest / tick) * tick
  const x = (step: number) => round(LEFT + ((WIDTH - LEFT - RIGHT) * step) / last)
  const y = (value: number) => round(HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / most)
  const rows = Array.from({ length: Math.round(most / tick) + 1 }, (_, i) => {
    const at = y(i * tick)
    return `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}"/><text x="${LEFT - 8}" y="${at + 5}" text-anchor="end">${+(i * tick).toFixed(2)}</text>`
  })
  const columns = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * last))
  const steps = columns.map((step) => `<text x="${x(step)}" y="${HEIGHT - 18}" text-anchor="middle">${step}</text>`)
  const ends: number[] = []
  const lines = curves.map(({ name, points }, i) => {
    // Stack the names of curves that end at the same height.
    let end = y(points.at(-1)?.[1] ?? 0) + 5
    while (ends.some((other) => Math.abs(other - end) < 16)) end -= 16
    ends.push(end)
    const path = points.map(([step, value]) => `${x(step)},${y(value)}`).join(' ')
    return `<polyline class="line${i % 2}" points="${path}"/><text class="name${i % 2}" x="${WIDTH - RIGHT + 8}" y="${end}">${escaped(name)}</text>`
  })
  const axis = `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 2}" text-anchor="middle">step</text>`
  return svg({
    name: 'curves',
    title: `${curves.map(({ name }) => name).join(' and ')} by step`,
    width: WIDTH,
    height: HEIGHT,
    colours: { light: '--line:#e5e3dd;--a:#0f6b66;--b:#b4632a', dark: '--line:#2f3842;--a:#5cc4bc;--b:#f0975f' },
    style:
      '.curves line{stroke:var(--line)}.curves polyline{fill:none;stroke-width:2}.curves .line0{stroke:var(--a)}.curves .line1{stroke:var(--b)}.curves text.name0{fill:var(--a)}.curves text.name1{fill:var(--b)}\n',
    parts: [...rows, ...steps, ...lines, axis],
  })
}

const STYLE = `
h2{font-size:22px;margin:32px 0 12px}h3{font-size:14px;font-weight:500;color:var(--soft);margin:0 0 8px;overflow-wrap:anywhere}
article{background:var(--sheet);padding:14px 18px;margin:0 0 14px}audio{width:100%;height:40px}
dl{display:grid;grid-template-columns:10em 1fr;gap:2px 12px;margin:8px 0 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
dd.good{color:#0f7a4d}dd.bad{color:var(--warn)}@media (prefers-color-scheme:dark){dd.good{color:#6fd3a4}}
@media (max-width:480px){dl{grid-template-columns:1fr}}`
