import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { numbersOf } from '../configuration/arguments.js'
import type { EmoVerseReport } from '../data/emoverse.js'

const FILES = { 1: 'emt_data_first.json', 2: 'emt_data_second.json' } as const

export const data = commandRule({
  name: 'data',
  summary: 'Makes EmoVerse’s instruction data out of labels: of MELD, ECF and MOSEI, for either stage.',
  details: `  voxtorch emoverse data --meld MELD --ecf Subtask_2_train.json --mosei unaligned_50.pkl --mosei-emotions emotions.csv --output data
  voxtorch emoverse data --meld test_sent_emo.csv --part test --all --weights MSA=0 --output meld_test_data.json

Writes emt_data_first.json (MOSEI alone) and emt_data_second.json (all), or with --stage one of them, and report.json: how many records
each task and class has, and what did not match. For each clip a task is drawn by its weight among those that it has an answer for.`,
  options: {
    meld: { kind: 'text', help: "MELD's folder, or one of its tables", value: 'path' },
    ecf: { kind: 'text', help: 'a file of ECF 2.0, of either subtask', value: 'file' },
    mosei: { kind: 'text', help: "MOSEI's labels and words: MMSA's pickle", value: 'file' },
    moseiEmotions: {
      kind: 'text',
      help: 'a table of its emotions: id,happy,sad,anger,surprise,disgust,fear',
      value: 'file',
    },
    faces: { kind: 'text', help: "OpenFace's tables, VIDEO/CLIP.csv", value: 'dir' },
    reasons: { kind: 'text', help: 'why somebody feels so: lines of { "id", "text" }', value: 'file' },
    stage: { kind: ['1', '2', 'both'], help: 'whose data is made', preset: 'both where MOSEI is given, else 2' },
    weights: { kind: 'list', help: 'of tasks, such as MER=2,MSA=1', value: 'task=n,…' },
    caps: { kind: 'list', help: 'most records of a source or task, such as meld=1000,ECPE=500', value: 'name=n,…' },
    part: { kind: ['train', 'valid', 'test'], help: 'of the data', preset: 'train' },
    all: { kind: 'flag', help: 'every task of every clip, in order: for tests' },
    wording: {
      kind: 'text',
      help: 'a published file whose texts about causes are taken',
      value: 'file',
      preset: 'ours',
    },
    context: { kind: 'whole', help: "utterances before MELD's; the published questions have none", preset: 0 },
    candidates: { kind: ['before', 'all'], help: 'which utterances are shown as causes', preset: 'before' },
    predicted: {
      kind: 'text',
      help: "dialogs whose emotions questions about causes show in place of the true ones, as 'emoverse causes' writes them",
      value: 'file',
    },
    sentiment: { kind: ['words', 'number'], help: "how MOSEI's is asked for", preset: 'words' },
    output: { kind: 'text', help: 'the folder, or of one stage the file, to write', value: 'path', preset: 'data' },
    seed: { kind: 'whole', help: 'of tasks and order', preset: 42 },
  },
  async run(given) {
    const { meld, ecf, mosei, moseiEmotions, faces, reasons, output = 'data' } = given
    const {
      stage = mosei === undefined ? '2' : 'both',
      part,
      all,
      wording,
      context,
      candidates,
      predicted,
      sentiment,
      seed,
    } = given
    const { emoverseData } = await import('../data/emoverse.js')
    const { writeSwiftDataset } = await import('../data/write.js')
    const { writeJson } = await import('../../../files/json/json.js')
    const inputs = defined({ meld, ecf, mosei, moseiEmotions, faces, reasons })
    const stages = stage === 'both' ? ([1, 2] as const) : ([Number(stage)] as (1 | 2)[])
    const isFile = /\.jsonl?$/i.test(output)
    if (isFile && stages.length > 1) {
      throw new ConfigError('Two stages are two files: --output DIR, or --stage 1 or 2', { argument: 'output' })
    }
    const options = {
      ...defined({ part, all, wording, context, candidates, sentiment, seed }),
      ...(predicted !== undefined && { predicted: await emotionsOf(predicted) }),
    }
    const numbers = { weights: numbersOf('--weights', given.weights), caps: numbersOf('--caps', given.caps) }
    const reports: Record<string, EmoVerseReport> = {}
    for (const number of stages) {
      const { records, report } = await emoverseData(inputs, { ...options, ...numbers, stage: number })
      const file = isFile ? output : join(output, FILES[number])
      if (!isFile) await (await import('node:fs/promises')).mkdir(output, { recursive: true })
      await writeSwiftDataset(file, records)
      reports[file] = report
      console.log(told(file, report))
    }
    if (!isFile) await writeJson(join(output, 'report.json'), reports)
    return 0
  },
})

/** The emotion of an utterance by a file of ECF's form. */
async function emotionsOf(file: string): Promise<(dialog: EmotionDialog, place: number) => string> {
  const { readEcf } = await import('../../../kit/emotion/ecf.js')
  const dialogs = new Map((await readEcf(file)).dialogs.map(({ id, utterances }) => [id, utterances]))
  return ({ id, utterances }, place) => {
    const number = utterances[place]?.id
    const emotion = dialogs.get(id)?.find((one) => one.id === number)?.emotion
    if (emotion !== undefined) return emotion
    throw new DataError(`${file} has no emotion of utterance ${number} of dialog ${id}`, {
      file,
      dialog: id,
      utterance: number,
    })
  }
}

function told(file: string, { records, tasks, unmatched, capped }: EmoVerseReport): string {
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
