import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { numbersOf } from '../configuration/arguments.js'
import { DATA_SETTINGS } from '../configuration/settings.js'
import type { EmoVerseReport } from '../data/emoverse.js'

const FILES = { 1: 'emt_data_first.json', 2: 'emt_data_second.json' } as const

export const data = commandRule({
  name: 'data',
  summary: "Make EmoVerse's instruction data from the labels of MELD, ECF and MOSEI, for either stage.",
  details: `  voxtorch emoverse data --meld MELD --ecf Subtask_2_train.json --mosei unaligned_50.pkl --mosei-emotions emotions.csv --output data
  voxtorch emoverse data --meld test_sent_emo.csv --part test --all --weights MSA=0 --output meld_test_data.json

Writes emt_data_first.json (MOSEI only) and emt_data_second.json (all sources); --stage selects one of them. report.json has the
number of records of each task and class, and the labels without a match. One task per clip is drawn, by weight, among the tasks for
which the clip has a label.`,
  options: {
    meld: { type: 'string', help: 'folder of MELD, or one of its tables', placeholder: 'path' },
    ecf: { type: 'string', help: 'file of ECF 2.0, of either subtask', placeholder: 'file' },
    mosei: { type: 'string', help: "MOSEI's labels and transcripts: MMSA's pickle", placeholder: 'file' },
    moseiEmotions: {
      type: 'string',
      help: "table of MOSEI's emotions: id,happy,sad,anger,surprise,disgust,fear",
      placeholder: 'file',
    },
    faces: { type: 'string', help: "folder of OpenFace's tables, VIDEO/CLIP.csv", placeholder: 'dir' },
    reasons: { type: 'string', help: 'reasons for emotions: lines of { "id", "text" }', placeholder: 'file' },
    stage: { type: ['1', '2', 'both'], help: 'stage to make data for', default: 'both with --mosei, otherwise 2' },
    weights: { type: 'list', help: 'weights of tasks, such as MER=2,MSA=1', placeholder: 'task=n,…' },
    caps: {
      type: 'list',
      help: 'maximum records of a source or task, such as meld=1000,ECPE=500',
      placeholder: 'name=n,…',
    },
    ...DATA_SETTINGS.options,
    wording: {
      type: 'string',
      help: 'published file to take the texts about causes from',
      placeholder: 'file',
      default: 'built in',
    },
    predicted: {
      type: 'string',
      help: "output of 'emoverse causes': its emotions replace the true ones in questions about causes",
      placeholder: 'file',
    },
    output: { type: 'string', help: 'output folder, or file for a single stage', placeholder: 'path', default: 'data' },
  },
  async run(values) {
    const { meld, ecf, mosei, moseiEmotions, faces, reasons, output = 'data' } = values
    const { stage = mosei === undefined ? '2' : 'both', wording, predicted } = values
    const { emoverseData } = await import('../data/emoverse.js')
    const { writeSwiftDataset } = await import('../data/write.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const inputs = defined({ meld, ecf, mosei, moseiEmotions, faces, reasons })
    const stages = stage === 'both' ? ([1, 2] as const) : ([Number(stage)] as (1 | 2)[])
    const isFile = /\.jsonl?$/i.test(output)
    if (isFile && stages.length > 1) {
      throw new ConfigError(
        `--output: expected a folder for two stages, got the file ${output}. Pass --output DIR, or --stage 1 or 2.`,
        { argument: 'output' },
      )
    }
    const options = {
      ...{ ...DATA_SETTINGS.fromOptions(values), ...defined({ wording }) },
      ...(predicted !== undefined && { predicted: await emotionsOf(predicted) }),
    }
    const numbers = { weights: numbersOf('--weights', values.weights), caps: numbersOf('--caps', values.caps) }
    const reports: Record<string, EmoVerseReport> = {}
    for (const number of stages) {
      const { records, report } = await emoverseData(inputs, { ...options, ...numbers, stage: number })
      const file = isFile ? output : join(output, FILES[number])
      if (!isFile) await (await import('node:fs/promises')).mkdir(output, { recursive: true })
      await writeSwiftDataset(file, records)
      reports[file] = report
      console.log(reportText(file, report))
    }
    if (!isFile) await writeJson(join(output, 'report.json'), reports)
    return 0
  },
})

/** Return a function that looks up an utterance's emotion in a file of ECF's format. */
async function emotionsOf(file: string): Promise<(dialog: EmotionDialog, place: number) => string> {
  const { readEcf } = await import('../../../kit/emotion/ecf.js')
  const dialogs = new Map((await readEcf(file)).dialogs.map(({ id, utterances }) => [id, utterances]))
  return ({ id, utterances }, place) => {
    const number = utterances[place]?.id
    const emotion = dialogs.get(id)?.find((one) => one.id === number)?.emotion
    if (emotion !== undefined) return emotion
    throw new DataError(
      `${file}: expected an emotion of utterance ${number} of dialog ${id}, got none. Predict this data with 'emoverse causes'.`,
      {
        file,
        dialog: id,
        utterance: number,
      },
    )
  }
}

function reportText(file: string, { records, tasks, unmatched, capped }: EmoVerseReport): string {
  const rows = Object.entries(tasks).map(([task, { records: count, classes }]) => {
    const names = Object.entries(classes).map(([name, number]) => `${name} ${number}`)
    return `  ${task.padEnd(5)}${String(count).padStart(7)}  ${names.join(', ')}`
  })
  const lost = [
    ...Object.entries(unmatched).map(([what, ids]) => [what, ids.length] as const),
    ...Object.entries(capped).map(([what, count]) => [`over the cap of ${what}`, count] as const),
  ]
    .filter(([, count]) => count > 0)
    .map(([what, count]) => `${what}: ${count}`)
  return [`${file}: ${records} records`, ...rows, ...(lost.length > 0 ? [`  ${lost.join('; ')}`] : [])].join('\n')
}
