/**
 * Writes two public collections in the form that spectra-finetune.ts reads, one JSON record a line:
 *
 * `npx tsx examples/spectra-data.ts emodb --data DIR --out emodb.jsonl`: recordings with a labels.csv that has the columns
 * file, actor, text and emotion. Actors become speakers, who are held out by name: `--test-speakers 03,16`.
 *
 * `npx tsx examples/spectra-data.ts meld --data DIR --out DIR`: MELD's {train,dev,test}_sent_emo.csv. Nobody is heard; the
 * turns before, with who said them, are the history. Writes train.jsonl, valid.jsonl and test.jsonl.
 */
import { mkdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string' },
    out: { type: 'string' },
    turns: { type: 'string', default: '10' }, // of history, at most
  },
})
const [{ data, out }, form] = [values, positionals[0]]
if (data === undefined || out === undefined || (form !== 'emodb' && form !== 'meld'))
  throw new Error('say what and where: spectra-data.ts emodb|meld --data DIR --out FILE or DIR')

async function write(file: string, records: object[]): Promise<void> {
  mkdirSync(dirname(file), { recursive: true })
  await vt.writeJsonl(file, records)
  console.log(`${file}: ${records.length} turns`)
}

if (form === 'emodb') {
  const rows = await vt.readCsv(join(data, 'labels.csv'))
  const records = rows.map(({ file, actor, text, emotion }) => ({
    audio: resolve(data, file!),
    text,
    label: emotion,
    speaker: actor,
  }))
  await write(out, records)
} else {
  for (const [name, split] of [
    ['train', 'train'],
    ['dev', 'valid'],
    ['test', 'test'],
  ] as const) {
    const rows = await vt.readCsv(join(data, `${name}_sent_emo.csv`), { encoding: 'mixed' })
    const dialogs = new Map<string, vt.CsvRow[]>()
    for (const row of rows) dialogs.set(row.Dialogue_ID!, [...(dialogs.get(row.Dialogue_ID!) ?? []), row])
    const place = (row: vt.CsvRow) => Number(row.Utterance_ID)
    const said = (row: vt.CsvRow) => `${row.Speaker}: ${row.Utterance}`
    const records = rows.map((row) => {
      const before = dialogs.get(row.Dialogue_ID!)!.filter((other) => place(other) < place(row))
      const history = before.sort((a, b) => place(a) - place(b)).map(said)
      return {
        text: said(row),
        history: history.slice(-Number(values.turns)),
        label: row.Emotion,
        speaker: row.Speaker,
      }
    })
    await write(join(out, `${split}.jsonl`), records)
  }
}
