import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { UsdmScores } from '../evaluation/metrics.js'

export const score = commandRule({
  name: 'score',
  summary: 'Scores what USDM understood, answered and said.',
  details: `  voxtorch usdm score --predictions predictions.jsonl --judge whisper-base --output heard.jsonl

Predictions are a JSON record on each line: {"id": "0_1_d23", "user": "hi.", "agent": "hello.", "transcript": "hi.",
"reply": "hello there.", "wav": "0_1_d23.wav"}: what is right, what the model heard and answered, and the sound of the answer. What is
missing is not scored. The judge, a Whisper, hears the answers; --output has what it heard, and what is there is not heard again.`,
  options: {
    predictions: { kind: 'text', help: 'the answers', value: 'file.jsonl' },
    judge: { kind: 'text', help: 'a Whisper: a folder, or the name of published weights', value: 'dir' },
    language: { kind: 'text', help: 'that it is told', value: 'code', preset: 'en' },
    output: { kind: 'text', help: 'writes the predictions with what the judge heard', value: 'file.jsonl' },
    json: { kind: 'text', help: 'writes the scores as JSON too', value: 'file' },
    device: { kind: 'text', help: 'of the judge, such as cpu or cuda:0', preset: 'cpu' },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what a line that cannot be used does', preset: 'stop' },
    progress: { kind: 'flag', help: 'a bar, or lines without a terminal' },
  },
  async run({ predictions: file, judge, language, output, json, device, onBadRecord, progress }) {
    if (file === undefined) throw new ConfigError('Say --predictions FILE', { argument: 'predictions' })
    const { ProgressBar } = await import('../../../data/progress.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const { Whisper } = await import('../../../models/whisper/whisper.js')
    const { scoreUsdm } = await import('../evaluation/evaluate.js')
    const { readUsdmPredictions, writeUsdmPredictions } = await import('../evaluation/predictions.js')
    const read = await readUsdmPredictions(file, defined({ onBadRecord }))
    if (read.badRecords > 0) {
      console.error(`${read.badRecords} left out; the first: ${read.badRecordErrors[0]?.message}`)
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
