import { argumentError } from '../../../base/check.js'
import { type ChangesOf, functionOf, settings } from '../../../base/settings.js'
import { escaped } from '../../../base/words.js'
import { counted, page, round, svg, table } from '../../../kit/figure.js'
import { classScores, confusions, emotionMetrics, type ReliabilityBin, reliability } from '../evaluation/metrics.js'
import type { LabeledDialog } from './label.js'
import { emotionStrip, type StripMedia } from './strip.js'

const SETTINGS = settings({
  title: { type: 'string', default: 'Emotions' },
  /** Maximum number of dialogs that are drawn. Default 20. */
  mostDialogs: { type: 'integer', default: 20 },
  /** Thumbnails and audio of a dialog's utterances, in their order. Default: none. */
  media: { type: functionOf<(dialog: LabeledDialog) => readonly StripMedia[]>(), default: () => [] },
  /** Further text for the page, such as a list of missing media. */
  note: { type: 'string', default: '' },
})

/** Options of `emotionReport`. @interface */
export type EmotionReportOptions = ChangesOf<typeof SETTINGS.table>

/**
 * Return predictions as a self-contained HTML page: accuracy, scores of each class, confusion matrix and calibration of the
 * utterances whose emotion is known, and a strip of each dialog, with playback if there is audio.
 */
export function emotionReport(dialogs: readonly LabeledDialog[], options: EmotionReportOptions = {}): string {
  const where = 'emotionReport'
  const { title, mostDialogs, media, note } = SETTINGS.read(where, options)
  const [first] = dialogs
  if (first === undefined) throw argumentError(where, 'dialogs', 'a list of at least one dialog', dialogs)
  const { labels } = first
  const known = dialogs.flatMap(({ dialog, utterances }) =>
    dialog.utterances.flatMap(({ emotion }, i) => {
      const truth = emotion === undefined ? -1 : labels.indexOf(emotion)
      return truth < 0 ? [] : [{ truth, ...(utterances[i] as LabeledDialog['utterances'][number]) }]
    }),
  )
  const count = dialogs.reduce((sum, { utterances }) => sum + utterances.length, 0)
  const drawn = dialogs.slice(0, mostDialogs)
  const strips = drawn.map((dialog) => {
    const name = `<h2>${escaped(`Dialog ${dialog.dialog.id}`)}</h2>`
    return `${name}<figure tabindex="0" class="dialog">${emotionStrip(dialog, media(dialog))}</figure>${transcript(dialog)}`
  })
  const left = dialogs.length - drawn.length
  return page({
    title,
    lead: `${counted(dialogs.length, 'dialog')}, ${counted(count, 'utterance')}${known.length > 0 ? `, ${known.length} with a known emotion` : ''}.`,
    parts: [
      ...(note === '' ? [] : [`<p class="note">${escaped(note)}</p>`]),
      ...(known.length > 0 ? metricsSection(known, labels) : []),
      ...strips,
      ...(left > 0 ? [`<p>${counted(left, 'more dialog')} not drawn.</p>`] : []),
      `<script>${SCRIPT}</script>`,
    ],
    style: STYLE,
  })
}

function transcript({ dialog, utterances }: LabeledDialog): string {
  const head = ['', 'Speaker', 'Emotion', 'Text']
  const rows = dialog.utterances.map(({ id, speaker, text, emotion: truth }, i) => {
    const { emotion } = utterances[i] as LabeledDialog['utterances'][number]
    const wrong = truth !== undefined && truth !== emotion
    return { cells: [String(id), speaker, wrong ? `${emotion} (${truth})` : emotion, text], wrong }
  })
  return `<details><summary>Text</summary>${table(head, rows)}</details>`
}

type Known = LabeledDialog['utterances'][number] & { truth: number }

function metricsSection(known: readonly Known[], labels: readonly string[]): string[] {
  const truth = known.map((one) => one.truth)
  const guess = known.map(({ emotion }) => labels.indexOf(emotion))
  const { accuracy, macroF1, weightedF1 } = emotionMetrics(truth, guess)
  const { bins, error } = reliability(
    known.map(({ probabilities }) => probabilities),
    truth,
  )
  const cell = (value: number) => value.toFixed(3)
  const rows = classScores(truth, guess, labels).map(({ label, precision, recall, f1, support }) => ({
    cells: [label, cell(precision), cell(recall), cell(f1), String(support)],
  }))
  return [
    `<p class="numbers">Accuracy <b>${cell(accuracy)}</b>, macro F1 <b>${cell(macroF1)}</b>, weighted F1 <b>${cell(weightedF1)}</b>, expected calibration error <b>${cell(error)}</b>.</p>`,
    '<h2>Scores of each emotion</h2>',
    table(['Emotion', 'Precision', 'Recall', 'F1', 'Utterances'], rows),
    '<h2>Confusion matrix</h2>',
    confusionTable(confusions(truth, guess, labels.length), labels),
    '<h2>Calibration</h2>',
    `<figure class="curve">${curve(bins)}</figure>`,
  ]
}

/** Draw the confusion matrix; the color of a cell shows its fraction of the row. */
function confusionTable(matrix: readonly (readonly number[])[], labels: readonly string[]): string {
  const names = labels.map((label) => `<th scope="col">${escaped(label)}</th>`).join('')
  const rows = matrix.map((row, i) => {
    const total = Math.max(
      1,
      row.reduce((sum, value) => sum + value, 0),
    )
    const cells = row.map((value, j) => {
      const share = Math.round((100 * value) / total)
      const classes = [...(i === j ? ['right'] : []), ...(share > 40 ? ['full'] : [])].join(' ')
      return `<td${classes && ` class="${classes}"`} style="--share:${share}%" title="${share} % of ${escaped(labels[i] as string)}">${value}</td>`
    })
    return `<tr><th scope="row">${escaped(labels[i] as string)}</th>${cells.join('')}</tr>`
  })
  return `<div class="wide" tabindex="0"><table class="confusion"><thead><tr><th scope="col">true \\ predicted</th>${names}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`
}

function curve(bins: readonly ReliabilityBin[]): string {
  const [left, top, size] = [52, 12, 240]
  const at = (confidence: number, accuracy: number) => [
    round(left + size * confidence),
    round(top + size * (1 - accuracy)),
  ]
  const filled = bins.filter(({ count }) => count > 0)
  const most = Math.max(...filled.map(({ count }) => count))
  const ticks = [0, 0.5, 1].flatMap((value) => [
    `<text class="axis" x="${left - 8}" y="${top + size * (1 - value) + 4}" text-anchor="end">${value}</text>`,
    `<text class="axis" x="${left + size * value}" y="${top + size + 18}" text-anchor="middle">${value}</text>`,
  ])
  const points = filled.map(({ confidence, accuracy, count }) => {
    const [x, y] = at(confidence, accuracy)
    const radius = round(3 + 6 * Math.sqrt(count / most))
    return `<circle class="point" cx="${x}" cy="${y}" r="${radius}"><title>${count} utterances, mean probability ${confidence.toFixed(2)}, accuracy ${accuracy.toFixed(2)}</title></circle>`
  })
  const line = filled.map(({ confidence, accuracy }) => at(confidence, accuracy).join(' ')).join('L')
  return svg({
    ...{
      name: 'reliability',
      title: 'Accuracy by predicted probability',
      width: left + size + 20,
      height: top + size + 44,
      scale: 1.2,
    },
    colours: { light: '--line:#dad7cf;--mark:#0f6b66', dark: '--line:#39424d;--mark:#4fc0b7' },
    style:
      '.reliability .axis{font-size:12px;fill:var(--soft)}.reliability .frame{fill:none;stroke:var(--line)}.reliability .ideal{stroke:var(--soft);stroke-dasharray:4 4}.reliability .line{fill:none;stroke:var(--mark);stroke-width:2}.reliability .point{fill:var(--mark)}',
    parts: [
      `<rect class="frame" x="${left}" y="${top}" width="${size}" height="${size}"/><path class="ideal" d="M${left} ${top + size}L${left + size} ${top}"/>`,
      ...ticks,
      `<text class="axis" x="${left + size / 2}" y="${top + size + 36}" text-anchor="middle">probability</text>`,
      `<text class="axis" transform="translate(12 ${top + size / 2}) rotate(-90)" text-anchor="middle">accuracy</text>`,
      `<path class="line" d="M${line}"/>`,
      ...points,
    ],
  })
}

const STYLE = `
h2{font-size:20px;margin:32px 0 8px}.note{color:var(--soft)}.numbers b{font-variant-numeric:tabular-nums}figure.dialog svg{width:auto;max-width:none;margin:0}
figure.curve svg{max-width:420px}details{margin:-16px 0 24px}summary{cursor:pointer;color:var(--soft)}td{overflow-wrap:anywhere}
.confusion td{background:color-mix(in srgb,#b3541e var(--share),var(--sheet));font-variant-numeric:tabular-nums}.confusion td.right{background:color-mix(in srgb,#0f6b66 var(--share),var(--sheet))}.confusion td.full{color:#fff}`

/** Script that plays an utterance when it is clicked. */
const SCRIPT = `
let audio,now
const stop=()=>{audio&&audio.pause();now&&now.classList.remove('playing');now=null}
const play=(g)=>{const again=now===g;stop();if(again)return
now=g;g.classList.add('playing');audio=new Audio(g.dataset.audio)
const from=Number(g.dataset.audio.startsWith('data:')?0:g.dataset.start||0),to=g.dataset.audio.startsWith('data:')?Infinity:Number(g.dataset.end||Infinity)
audio.currentTime=from;audio.ontimeupdate=()=>{if(audio.currentTime>=to)stop()};audio.onended=stop;audio.play()}
for(const g of document.querySelectorAll('[data-audio]')){g.addEventListener('click',()=>play(g));g.addEventListener('keydown',(e)=>{if(e.key==='Enter'||e.key===' '){e.preventDefault();play(g)}})}`
