/** Write the demo's results as one HTML page that needs no network. */
import { readFile } from 'node:fs/promises'
import type { Outcome } from './outcome.js'

/** @param clips the WAV file of each example */
export async function page(outcome: Outcome, clips: string[]): Promise<string> {
  const audio = await Promise.all(clips.map(async (path) => (await readFile(path)).toString('base64')))
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>voxtorch demo: speech and text</title><style>${STYLE}</style></head><body><main>
<h1>Text and tone of voice</h1>
<p class="lead">Is the text positive, and is the voice bright or flat? A positive text in a flat voice suggests sarcasm. Neither
the text nor the voice alone gives the answer, so a model needs both.</p>
<p class="note"><strong>The voices are synthetic.</strong> Real sentences from reviews, labeled by people, are spoken by
espeak-ng. The tone is random and independent of the text. No sentence and no voice of the test set is in training.</p>
<h2>On held-out sentences and voices</h2>${scores(outcome)}
<p>${n(outcome, 'clips.train')} clips of ${n(outcome, 'sentences.train')} sentences by ${n(outcome, 'voices.train')} voices for
training, ${n(outcome, 'clips.test')} of ${n(outcome, 'sentences.test')} sentences by ${n(outcome, 'voices.test')} other voices
for the test. Each test sentence is heard in both tones, so whoever only reads it gets at most one of the two right.</p>
<h2>Training</h2>${curves(outcome)}
<p>${n(outcome, 'epochs')} epoch${outcome.epochs === 1 ? '' : 's'} for each of three models, ${n(outcome, 'seconds.training', 'seconds')} in all; the one that
reads and listens has ${n(outcome, 'parameters')} parameters. Seed ${n(outcome, 'seed')}.</p>
<h2>What the fused model mistakes for what</h2>${confusion(outcome)}
<h2>Listen</h2>
<p>The first test sentences of each kind, not the best ones. Each is spoken once flat and once bright.</p>
${outcome.examples.map((_, i) => example(outcome, i, audio[i] as string)).join('')}
</main></body></html>
`
}

/** A number of demo.json, marked with its place there, so that test/check-report.mjs can compare the two. */
function n(outcome: Outcome, path: string, as: keyof typeof FORMATS = 'count'): string {
  const value = path.split('.').reduce<unknown>((object, key) => (object as Record<string, unknown>)[key], outcome)
  return `<data data-from="${path}" data-as="${as}" value="${value}">${FORMATS[as](value as number)}</data>`
}

const percent = (value: number) => `${(100 * value).toFixed(1)} %`
const FORMATS = {
  percent,
  count: (value: number) => value.toLocaleString('en'),
  seconds: (value: number) => `${value.toFixed(0)} s`,
}

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] as string)

function scores(outcome: Outcome): string {
  const rows = outcome.rows.map(
    ({ input, accuracy }, i) => `<tr${i === 0 ? ' class="best"' : ''}><th scope="row">${input}</th>
<td>${n(outcome, `rows.${i}.accuracy`, 'percent')}</td><td>${n(outcome, `rows.${i}.f1`, 'percent')}</td>
<td class="bar"><span style="width:${(100 * accuracy).toFixed(1)}%"></span></td></tr>`,
  )
  return `<table class="scores"><thead><tr><th>Model sees</th><th>Accuracy</th><th>Weighted F1</th><th></th></tr></thead>
<tbody>${rows.join('')}</tbody></table>`
}

const COLORS = ['#0f6b66', '#b4632a', '#5b6b86']

/** Loss by epoch, one line for each model. */
function curves({ loss, epochs }: Outcome): string {
  const [width, height, left, right, top, bottom] = [720, 280, 44, 130, 12, 36]
  const highest = Math.max(...Object.values(loss).flat())
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2, 5].find((size) => highest / size <= 6) ?? 10
  const most = Math.ceil(highest / step) * step
  const x = (epoch: number) => left + ((width - left - right) * (epoch - 1)) / Math.max(1, epochs - 1)
  const y = (value: number) => height - bottom - ((height - top - bottom) * value) / most
  const yTicks = Array.from({ length: Math.round(most / step) + 1 }, (_, i) => i * step)
  const every = Math.ceil(epochs / 10)
  const xTicks = Array.from({ length: epochs }, (_, i) => i + 1).filter((epoch) => (epoch - 1) % every === 0)
  const grid = yTicks.map(
    (value) => `<line x1="${left}" x2="${width - right}" y1="${y(value)}" y2="${y(value)}"/>
<text data-axis="y" x="${left - 8}" y="${y(value)}" text-anchor="end" dominant-baseline="central">${+value.toFixed(2)}</text>`,
  )
  const below = xTicks.map(
    (epoch) => `<text data-axis="x" x="${x(epoch)}" y="${height - bottom + 18}" text-anchor="middle">${epoch}</text>`,
  )
  const ends = apart(Object.values(loss).map((values) => y(values.at(-1) as number)))
  const lines = Object.entries(loss).map(([name, values], i) => {
    const points = values.map((value, j) => `${x(j + 1).toFixed(2)},${y(value).toFixed(2)}`).join(' ')
    return `<polyline data-series="${name}" points="${points}" stroke="${COLORS[i]}"/>
${values.map((value, j) => `<circle cx="${x(j + 1)}" cy="${y(value)}" r="3" fill="${COLORS[i]}"/>`).join('')}
<text x="${width - right + 8}" y="${ends[i]}" style="fill:${COLORS[i]}" class="name" dominant-baseline="central">${name}</text>`
  })
  return `<figure><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Training loss by epoch">
<g class="grid">${grid.join('')}${below.join('')}</g>${lines.join('')}
<text x="${(left + width - right) / 2}" y="${height - 2}" text-anchor="middle" class="axis">epoch</text></svg>
<figcaption>Mean cross-entropy of each epoch. A low training loss alone means little: the text-only model
memorizes the tone of each training sentence.</figcaption></figure>`
}

/** Labels at the ends of lines, moved down where they would lie on each other. */
function apart(places: number[]): number[] {
  const moved = [...places]
  const order = places.map((_, i) => i).sort((a, b) => places[a]! - places[b]!)
  order.forEach((i, rank) => {
    if (rank > 0) moved[i] = Math.max(moved[i]!, moved[order[rank - 1]!]! + 16)
  })
  return moved
}

function confusion(outcome: Outcome): string {
  const { labels, confusion } = outcome
  const head = labels.map((label) => `<th scope="col">${label.replace(', ', ',<br>')}</th>`).join('')
  const rows = confusion.map((row, i) => {
    const total = row.reduce((sum, count) => sum + count, 0)
    const cells = row.map((count, j) => {
      const share = count / Math.max(1, total)
      const color = `background:rgba(15,107,102,${(0.85 * share).toFixed(2)});color:${share > 0.5 ? '#fff' : 'inherit'}`
      return `<td style="${color}">${n(outcome, `confusion.${i}.${j}`)}</td>`
    })
    return `<tr><th scope="row">${labels[i]}</th>${cells.join('')}</tr>`
  })
  return `<div class="wide"><table class="confusion"><thead><tr><th class="corner">true class ↓ &nbsp; taken for →</th>${head}</tr></thead>
<tbody>${rows.join('')}</tbody></table></div>`
}

function example({ examples, labels }: Outcome, i: number, wav: string): string {
  const { text, voice, truth, guesses } = examples[i] as Outcome['examples'][number]
  const said = Object.entries(guesses).map(
    ([name, guess]) => `<li class="${guess === truth ? 'right' : 'wrong'}"><b>${name}</b> ${labels[guess]}</li>`,
  )
  return `<article data-example="${i}"><blockquote>${escaped(text)}</blockquote>
<div class="truth">${labels[truth]} <span class="voice">${escaped(voice)}</span></div>
<audio controls preload="metadata" src="data:audio/wav;base64,${wav}"></audio><ul>${said.join('')}</ul></article>`
}

const STYLE = `
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f6f5f2;color:#1d2733;font:17px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:820px;margin:0 auto;padding:56px 24px 80px}
h1{font-size:34px;line-height:1.2;letter-spacing:-.01em;margin:0 0 12px}h2{font-size:21px;margin:52px 0 14px}
.lead{font-size:19px;color:#3b4756;margin:0 0 20px}p{margin:14px 0}
.note{background:#fff;border-left:4px solid #0f6b66;padding:12px 18px;margin:22px 0;font-size:16px}
table{border-collapse:collapse;width:100%;background:#fff;font-variant-numeric:tabular-nums}
th,td{padding:10px 14px;text-align:right;border-bottom:1px solid #e5e3dd}th{font-weight:500;color:#5a6472;font-size:15px}
tbody th,.scores thead th:first-child{text-align:left;color:#1d2733}.scores .best th,.scores .best td{font-weight:650}
.bar{width:38%}.bar span{display:block;height:10px;border-radius:2px;background:#b9c0ca}.best .bar span{background:#0f6b66}
.confusion{font-size:15px}.confusion th,.confusion td{padding:10px 8px}.confusion td{text-align:center;font-size:18px}.confusion thead th{text-align:center;font-size:13px;white-space:nowrap}
.confusion tbody th{font-size:14px;white-space:nowrap}.wide{overflow-x:auto}.confusion .corner{text-align:left;font-weight:400}
figure{margin:0;background:#fff;padding:18px 18px 12px}svg{width:100%;height:auto;display:block}
svg text{font-size:13px;fill:#5a6472}svg .name{font-weight:600}.grid line{stroke:#e5e3dd}
polyline{fill:none;stroke-width:2.5;stroke-linejoin:round}figcaption{font-size:14px;color:#5a6472;margin-top:10px}
article{background:#fff;padding:18px 22px;margin:14px 0}blockquote{margin:0 0 4px;font-size:18px}
.truth{color:#0f6b66;font-weight:600;font-size:15px}.voice{color:#5a6472;font-weight:400;margin-left:8px}
audio{width:100%;height:40px;margin:10px 0}ul{list-style:none;margin:0;padding:0;font-size:15px;color:#5a6472}
li b{display:inline-block;width:9em;font-weight:500;color:#1d2733}li:before{display:inline-block;width:1.4em;font-weight:700}
.right:before{content:"✓";color:#0f6b66}.wrong:before{content:"✗";color:#b03a2e}`
