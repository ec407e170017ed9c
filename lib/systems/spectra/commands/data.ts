import { mkdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { ConfigError } from '../../../base/errors.js'
import type { CsvRow } from '../../../files/csv/csv.js'
import { commandRule } from '../../../kit/command.js'

export const data = commandRule({
  name: 'data',
  summary: 'Convert published recordings to the format that fine-tuning reads.',
  details: `  voxtorch spectra data emodb --data EMODB --output turns.jsonl
  voxtorch spectra data meld --data MELD --output FOLDER

emodb: recordings and a labels.csv with the columns file, actor, text and emotion, as Emo-DB (Burkhardt et al. 2005); writes
one JSONL file. meld: MELD's {train,dev,test}_sent_emo.csv, as text without audio, with the previous turns and their speakers as
history; writes train.jsonl, valid.jsonl and test.jsonl.`,
  files: 'emodb|meld',
  options: {
    data: { type: 'string', help: 'folder of recordings and tables', placeholder: 'dir' },
    output: { type: 'string', help: 'file or folder to write', placeholder: 'path', aliases: ['out'] },
    turns: { type: 'integer', help: 'maximum number of history turns', default: 10 },
  },
  async run({ data: from, output, turns = 10 }, [form]) {
    if (from === undefined || output === undefined || (form !== 'emodb' && form !== 'meld')) {
      throw new ConfigError('data: expected emodb or meld, --data DIR and --output PATH, got only some of them.')
    }
    const { readCsv } = await import('../../../files/csv/csv.js')
    const { writeJsonl } = await import('../../../files/json/jsonl.js')
    const write = async (file: string, records: object[]) => {
      mkdirSync(dirname(file), { recursive: true })
      await writeJsonl(file, records)
      console.log(`${file}: ${records.length} turns`)
    }
    if (form === 'emodb') {
      const rows = await readCsv(join(from, 'labels.csv'))
      const records = rows.map(({ file, actor, text, emotion }) => ({
        audio: resolve(from, file as string),
        text,
        label: emotion,
        speaker: actor,
      }))
      await write(output, records)
      return 0
    }
    for (const [name, split] of [
      ['train', 'train'],
      ['dev', 'valid'],
      ['test', 'test'],
    ] as const) {
      const rows = await readCsv(join(from, `${name}_sent_emo.csv`), { encoding: 'mixed' })
      await write(join(output, `${split}.jsonl`), meldTurns(rows, turns))
    }
    return 0
  },
})

function meldTurns(rows: readonly CsvRow[], most: number): object[] {
  const dialogs = new Map<string | undefined, CsvRow[]>()
  for (const row of rows) dialogs.set(row.Dialogue_ID, [...(dialogs.get(row.Dialogue_ID) ?? []), row])
  const place = (row: CsvRow) => Number(row.Utterance_ID)
  const lineOf = (row: CsvRow) => `${row.Speaker}: ${row.Utterance}`
  return rows.map((row) => {
    const before = (dialogs.get(row.Dialogue_ID) ?? []).filter((other) => place(other) < place(row))
    const history = before.sort((a, b) => place(a) - place(b)).map(lineOf)
    return {
      text: lineOf(row),
      history: most === 0 ? [] : history.slice(-most),
      label: row.Emotion,
      speaker: row.Speaker,
    }
  })
}
