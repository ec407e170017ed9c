import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { missingOption } from '../../../kit/options.js'
import type { UsdmScores } from '../evaluation/metrics.js'

export const score = commandRule({
  name: 'score',
  summary: 'Score the transcripts, replies and spoken replies of USDM.',
  details: `  voxtorch usdm score --predictions predictions.jsonl --judge whisper-base --output heard.jsonl

Predictions are a JSON record on each line: {"id": "0_1_d23", "user": "hi.", "agent": "hello.", "transcript": "hi.",
"reply": "hello there.", "wav": "0_1_d23.wav"}: the references, the model's transcript and reply, and the audio of the reply. Missing
fields are not scored. The judge, a Whisper, transcribes the spoken replies; --output keeps its transcripts, which are not computed again.`,
  options: {
    predictions: { type: 'string', help: 'file of predictions', placeholder: 'file.jsonl' },
    judge: { type: 'string', help: 'Whisper: a folder, or the name of published weights', placeholder: 'dir' },
    language: { type: 'string', help: 'language for the judge', placeholder: 'code', default: 'en' },
    output: {
      type: 'string',
      help: 'file to write the predictions with the transcripts of the judge to',
      placeholder: 'file.jsonl',
    },
    json: { type: 'string', help: 'JSON file to write the scores to', placeholder: 'file' },
    device: { type: 'string', help: 'device of the judge, such as cpu or cuda:0', default: 'cpu' },
    onBadRecord: { type: ['stop', 'skip'], help: 'action for a line that cannot be used', default: 'stop' },
    progress: { type: 'boolean', help: 'show progress: a bar, or lines without a terminal' },
  },
  async run({ predictions: file, judge, language, output, json, device, onBadRecord, progress }) {
    if (file === undefined) throw missingOption('predictions', 'the file of predictions', 'FILE')
    const { ProgressBar } = await import('../../../data/progress.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const { Whisper } = await import('../../../models/whisper/whisper.js')
    const { scoreUsdm } = await import('../evaluation/evaluate.js')
    const { readUsdmPredictions, writeUsdmPredictions } = await import('../evaluation/predictions.js')
    const read = await readUsdmPredictions(file, defined({ onBadRecord }))
    if (read.badRecords > 0) {
      console.error(`${read.badRecords} lines skipped; first error: ${read.badRecordErrors[0]?.message}`)
    }
    using whisper =
      judge === undefined ? undefined : await Whisper.fromPretrained(judge, defined({ device: device as 'cpu' }))
    const left = read.predictions.filter(({ wav, heard }) => wav !== undefined && heard === undefined).length
    using bar = progress && whisper ? new ProgressBar({ total: left, label: 'replies', unit: 'reply' }) : undefined
    const { scores, predictions } = await scoreUsdm(read.predictions, {
      ...defined({ judge: whisper, language }),
      onHeard: () => void bar?.tick(1),
    })
    if (output !== undefined) await writeUsdmPredictions(output, predictions)
    if (json !== undefined) await writeJson(json, { ...scores, ...(judge !== undefined && { judge }) })
    console.log(table(scores, judge))
    return 0
  },
})

function table(scores: UsdmScores, judge: string | undefined): string {
  const shown = (value: number | null) => (value === null ? '-' : value.toFixed(4))
  const by = judge === undefined ? '' : `, by ${judge}`
  const rows: [string, string][] = [
    ['predictions', String(scores.predictions)],
    ['WER of transcripts', `${shown(scores.sttWer)} (${scores.sttSamples})`],
    ['WER of spoken replies', `${shown(scores.ttsWer)} (${scores.ttsSamples}${by})`],
    ['METEOR of replies', `${shown(scores.meteor)} (${scores.meteorVariant})`],
    ['ROUGE-L of replies, F1', `${shown(scores.rougeL)} (${scores.replySamples})`],
  ]
  return rows.map(([name, value]) => `${name.padEnd(24)}${value}`).join('\n')
}
